//! Which file an announcement is: `D:/conf/<VDN>/<file name>` is a file of the VDN's folder and nothing else.

use super::codes::{Fault, cause};

/// The path below the audio root of what a client calls `voicePath`. `folder` is where `conf` is.
pub(super) fn path(folder: &str, vdn: u32, given: &str) -> Result<String, Fault> {
    let outside = Fault::below(cause::OUTSIDE);
    let mut rest = given;
    if let [drive, b':', ..] = given.as_bytes()
        && drive.is_ascii_alphabetic()
    {
        rest = &given[2..];
    }
    let text = rest.replace('\\', "/");
    let mut parts = text.strip_prefix('/').ok_or(outside)?.split('/');
    let (conf, number, name) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let plain = !name.is_empty() && !name.contains([':', '\0']) && name != "." && name != "..";
    if conf != Some("conf") || number != Some(vdn.to_string().as_str()) || !plain || parts.next().is_some() {
        return Err(outside);
    }
    if name.chars().any(char::is_control) {
        return Err(outside);
    }
    // Formats without a header of their own can't be told apart.
    if !name.to_ascii_lowercase().ends_with(".wav") {
        return Err(Fault::below(cause::BAD_FILE));
    }
    Ok(if folder.is_empty() { format!("{vdn}/{name}") } else { format!("{folder}/{vdn}/{name}") })
}

/// Longest `voicePath`.
pub(super) const PATH_BYTES_MAX: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_vdn_are_named() {
        for given in ["D:/conf/7/hello.wav", "/conf/7/hello.wav", "d:\\conf\\7\\hello.wav"] {
            assert_eq!(path("conf", 7, given), Ok("conf/7/hello.wav".to_owned()), "{given}");
        }
        assert_eq!(path("", 7, "D:/conf/7/Ä b.WAV"), Ok("7/Ä b.WAV".to_owned()));
        for given in [
            "",
            "hello.wav",
            "conf/7/hello.wav",
            "D:conf/7/hello.wav",
            "D:/conf/8/hello.wav",
            "D:/conf/07/hello.wav",
            "D:/conf/7/",
            "D:/conf/7",
            "D:/conf/7/..",
            "D:/conf/7/../8/hello.wav",
            "D:/conf/7/sub/hello.wav",
            "D:/conf/../conf/7/hello.wav",
            "D:/../conf/7/hello.wav",
            "D:/conf/7/C:hello.wav",
            "D:C:/conf/7/hello.wav",
            "D:/C:/conf/7/hello.wav",
            "D://conf/7/hello.wav",
            "D:/conf//hello.wav",
            "/etc/passwd",
            "D:/conf/7/hel\0lo.wav",
            "D:/conf/7/hel\nlo.wav",
            "D:\\conf\\7\\..\\x.wav",
            "//host/conf/7/hello.wav",
        ] {
            assert_eq!(path("conf", 7, given), Err(Fault::below(cause::OUTSIDE)), "{given:?}");
        }
        for given in ["D:/conf/7/hello.V3", "D:/conf/7/hello", "D:/conf/7/hello.wav.vox"] {
            assert_eq!(path("conf", 7, given), Err(Fault::below(cause::BAD_FILE)), "{given}");
        }
    }
}
