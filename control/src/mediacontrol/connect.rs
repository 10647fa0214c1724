//! The connect decision table: what a connect request is, by which of its three numbers are given.

use super::codes::Code;

/// How a number was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// Not at all.
    Absent,
    /// As zero.
    Zero,
    /// As something else.
    Set,
}

impl Given {
    /// How `number` was given.
    pub fn of(number: Option<u32>) -> Self {
        match number {
            None => Self::Absent,
            Some(0) => Self::Zero,
            Some(_) => Self::Set,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Make a half connection.
    NewHalf,
    /// Make a full connection.
    NewFull,
    /// Make a full connection, and a conference for it.
    NewFullInNewConference,
    /// Make a full connection and let it join.
    NewFullJoins,
    /// Complete the half connection.
    Complete,
    /// The connection creates a conference.
    CreatesConference,
    /// Complete the half connection, which creates a conference.
    CompleteAndCreatesConference,
    /// The connection joins.
    Joins,
    /// Complete the half connection and let it join.
    CompleteAndJoins,
    /// Nothing: answered with this code.
    Refused(Code),
}

/// Decides by the ids and the port of the remote. A connection id that is zero counts as absent.
pub fn connect(connection: Given, conference: Given, port: Given) -> Outcome {
    use Given::{Absent, Set, Zero};
    match (connection, conference, port) {
        (Absent | Zero, Absent, Zero) => Outcome::NewHalf,
        (Absent | Zero, Absent, Set) => Outcome::NewFull,
        (Absent | Zero, Zero, Set) => Outcome::NewFullInNewConference,
        (Absent | Zero, Set, Set) => Outcome::NewFullJoins,
        (Absent | Zero, Absent | Zero | Set, Absent) | (Absent | Zero, Zero | Set, Zero) | (Set, Zero, Zero) => {
            Outcome::Refused(Code::InvalidParameters)
        }
        (Set, Absent, Absent | Zero) | (Set, Set, Zero) => Outcome::Refused(Code::AlreadyConnected),
        (Set, Absent, Set) => Outcome::Complete,
        (Set, Zero, Absent) => Outcome::CreatesConference,
        (Set, Zero, Set) => Outcome::CompleteAndCreatesConference,
        (Set, Set, Absent) => Outcome::Joins,
        (Set, Set, Set) => Outcome::CompleteAndJoins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_decided() {
        use Given::{Absent as N, Set as P, Zero as Z};
        let insufficient = Outcome::Refused(Code::InvalidParameters);
        let connected = Outcome::Refused(Code::AlreadyConnected);
        for (row, connection, conference, port, outcome) in [
            (0, Z, N, N, insufficient),
            (1, Z, N, Z, Outcome::NewHalf),
            (2, Z, N, P, Outcome::NewFull),
            (3, Z, Z, N, insufficient),
            (4, Z, Z, Z, insufficient),
            (5, Z, Z, P, Outcome::NewFullInNewConference),
            (6, Z, P, N, insufficient),
            (7, Z, P, Z, insufficient),
            (8, Z, P, P, Outcome::NewFullJoins),
            (9, P, N, N, connected),
            (10, P, N, Z, connected),
            (11, P, N, P, Outcome::Complete),
            (12, P, Z, N, Outcome::CreatesConference),
            (13, P, Z, Z, insufficient),
            (14, P, Z, P, Outcome::CompleteAndCreatesConference),
            (15, P, P, N, Outcome::Joins),
            (16, P, P, Z, connected),
            (17, P, P, P, Outcome::CompleteAndJoins),
        ] {
            assert_eq!(connect(connection, conference, port), outcome, "row {row}");
            if connection == Z {
                assert_eq!(connect(N, conference, port), outcome, "row {row}, no connection id");
            }
        }
    }
}
