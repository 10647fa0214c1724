//! The file of a message on its way to a client, read piece by piece by threads that may wait for the disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame};
use rustix::fs::{Mode, OFlags};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{spawn_blocking, spawn_local};

/// Opens a file, and tells how long it is. Waits for the disk.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("no regular file of up to {FILE_BYTES_MAX} bytes")));
    }
    Ok((file, metadata.len()))
}

/// The first `length` bytes of a file as the body of an answer. `turn` is given back when it ends.
pub(super) fn body(file: File, length: u64, turn: OwnedSemaphorePermit) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    spawn_local(async move {
        feed(file, length, &sender).await;
        drop(turn);
    });
    Body::new(Pieces(receiver))
}

async fn feed(file: File, length: u64, sender: &mpsc::Sender<io::Result<Bytes>>) {
    // No more than was announced, whoever writes to it meanwhile.
    let mut rest = file.take(length);
    while rest.limit() > 0 {
        // A thread is taken for a piece only, so a client that reads slowly keeps none.
        let read = spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = rest.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
            (rest, read.map(|_| piece))
        });
        let piece = match read.await {
            Ok((left, piece)) => {
                rest = left;
                piece.and_then(
                    |piece| if piece.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(piece) },
                )
            }
            Err(error) => {
                // The client sees that it got less than was announced.
                let _ = sender.send(Err(io::Error::other(error))).await;
                return;
            }
        };
        let is_end = piece.is_err();
        if let Err(error) = &piece {
            tracing::warn!(%error, "the file of a message can't be read to its end");
        }
        if sender.send(piece.map(Bytes::from)).await.is_err() || is_end {
            return;
        }
    }
}

struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Longest file of a message that is handed out.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Read at a time; up to three of them are in memory for each download.
const PIECE_BYTES: usize = 64 << 10;
/// Downloads at once; more wait for their turn.
pub(super) const DOWNLOADS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn read(file: File, length: u64) -> (Vec<u8>, Vec<usize>, bool) {
        let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(1);
        let (mut bytes, mut pieces, mut is_whole) = (Vec::new(), Vec::new(), true);
        let reading = async {
            while let Some(piece) = receiver.recv().await {
                match piece {
                    Ok(piece) => {
                        pieces.push(piece.len());
                        bytes.extend(piece);
                    }
                    Err(_) => is_whole = false,
                }
            }
        };
        let feeding = async move { feed(file, length, &sender).await };
        tokio::join!(feeding, reading);
        (bytes, pieces, is_whole)
    }

    #[tokio::test]
    async fn a_file_goes_out_in_pieces_and_no_more_than_was_announced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.wav");
        let content: Vec<u8> = (0..=u8::MAX).cycle().take(2 * PIECE_BYTES + 5).collect();
        std::fs::write(&path, &content).unwrap();
        let (file, length) = open(&path).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        assert_eq!(read(file, length).await, (content, vec![PIECE_BYTES, PIECE_BYTES, 5], true));
        // It became shorter meanwhile: the client is to see that.
        let (file, length) = open(&path).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert_eq!(read(file, length).await, (b"short".to_vec(), vec![5], false));
    }

    #[test]
    fn what_is_too_long_or_no_file_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.wav");
        let file = File::create(&path).unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(open(&path).is_err());
        file.set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(open(&path).unwrap().1, FILE_BYTES_MAX);
        assert!(open(directory.path()).is_err());
        let link = directory.path().join("2.wav");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open(&link).is_err());
    }
}
