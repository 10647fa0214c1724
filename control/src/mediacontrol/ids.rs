//! The ids clients see: decimal 32-bit numbers, the high byte that of the engine, mapped to native ids.
//!
//! The low 24 bits are a counter that starts where the time of day puts it, so that ids from before a restart are not
//! met again soon. A number rests for a minute after its end.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::codes::{Code, Fault};
use super::lanes::Lane;

/// A connection as clients know it.
#[derive(Debug)]
pub struct Connection {
    /// The number clients use.
    pub id: u32,
    /// The native id.
    pub native: String,
    /// The script it belongs to.
    pub routing_guid: String,
    /// Whether it only stands for an operation on a conference.
    pub utility: bool,
    /// The client has said where RTCP goes, so it does not follow the address.
    pub rtcp_told: Cell<bool>,
    /// The order of its commands.
    pub lane: Lane,
}

/// A conference as clients know it.
#[derive(Debug)]
pub struct Conference {
    /// The number clients use.
    pub id: u32,
    /// The native id.
    pub native: String,
    /// A DeleteConnection for all of it is in progress.
    pub deleting: Cell<bool>,
}

/// An operation as clients know it.
#[derive(Debug)]
pub struct Operation {
    /// The number clients use.
    pub id: u32,
    /// The native id.
    pub native: String,
    /// The connection it was started on, or the utility connection that stands for it.
    pub connection: Rc<Connection>,
    /// The action that started it.
    pub action: &'static str,
    /// Whose it is.
    pub routing_guid: String,
    /// What the client is told of it, besides.
    pub notes: Notes,
}

/// What goes with an operation until its end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notes {
    /// Given with the action, returned with the event.
    pub state: Option<String>,
    /// The file it writes, below the recording directory.
    pub filename: Option<String>,
    /// The client was not told that it runs, so it is not told of its end.
    pub silent: bool,
}

/// Every id in use.
#[derive(Debug)]
pub struct Ids {
    mms: u8,
    next: Cell<u32>,
    connections: RefCell<Table<Connection>>,
    conferences: RefCell<Table<Conference>>,
    operations: RefCell<Table<Operation>>,
    resting: RefCell<Resting>,
}

#[derive(Debug)]
struct Table<T> {
    by_id: HashMap<u32, Rc<T>>,
    by_native: HashMap<String, Rc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), by_native: HashMap::new() }
    }
}

/// Numbers that have ended; they are not given out again while here.
#[derive(Debug, Default)]
struct Resting {
    order: VecDeque<(Instant, u32)>,
    numbers: HashSet<u32>,
    expired: HashSet<u32>,
}

impl Ids {
    /// No ids yet, of engine `mms`; `since_epoch` is the time of day.
    pub fn new(mms: u8, since_epoch: Duration) -> Self {
        // A hundred new ids a second and more would have to be made on average for a start to fall among old ones.
        let start = since_epoch.as_millis() / 10 % u128::from(LOCAL_MASK);
        Self {
            mms,
            next: Cell::new(u32::try_from(start).unwrap_or_default()),
            connections: RefCell::default(),
            conferences: RefCell::default(),
            operations: RefCell::default(),
            resting: RefCell::default(),
        }
    }

    /// The engine's number.
    pub fn mms(&self) -> u8 {
        self.mms
    }

    /// Takes up a connection.
    pub fn add_connection(&self, native: &str, routing_guid: &str, utility: bool) -> Rc<Connection> {
        let connection = Rc::new(Connection {
            id: self.number(),
            native: native.to_owned(),
            routing_guid: routing_guid.to_owned(),
            utility,
            rtcp_told: Cell::new(false),
            lane: Lane::default(),
        });
        self.connections.borrow_mut().add(connection.id, native, Rc::clone(&connection));
        connection
    }

    /// Takes up a conference.
    pub fn add_conference(&self, native: &str) -> Rc<Conference> {
        let conference =
            Rc::new(Conference { id: self.number(), native: native.to_owned(), deleting: Cell::new(false) });
        self.conferences.borrow_mut().add(conference.id, native, Rc::clone(&conference));
        conference
    }

    /// Takes up an operation.
    pub fn add_operation(
        &self,
        native: &str,
        connection: Rc<Connection>,
        action: &'static str,
        routing_guid: &str,
        notes: Notes,
    ) -> Rc<Operation> {
        let operation = Rc::new(Operation {
            id: self.number(),
            native: native.to_owned(),
            connection,
            action,
            routing_guid: routing_guid.to_owned(),
            notes,
        });
        self.operations.borrow_mut().add(operation.id, native, Rc::clone(&operation));
        operation
    }

    /// The connection a client means.
    ///
    /// # Errors
    /// 22 no id, 8 another engine's, 12 an expired reservation, 23 unknown.
    pub fn connection(&self, text: &str) -> Result<Rc<Connection>, Fault> {
        let id = self.own(text)?;
        if let Some(connection) = self.connections.borrow().by_id.get(&id) {
            return Ok(Rc::clone(connection));
        }
        let mut resting = self.resting.borrow_mut();
        resting.purge();
        if resting.expired.contains(&id) {
            return Err(Fault::new(Code::SessionTimeout, format!("the reservation of connection {id} has expired")));
        }
        Err(Fault::new(Code::UnknownConnectionId, format!("there is no connection {id}")))
    }

    /// The conference a client means.
    ///
    /// # Errors
    /// 22 no id, 8 another engine's, 24 unknown.
    pub fn conference(&self, text: &str) -> Result<Rc<Conference>, Fault> {
        let id = self.own(text)?;
        self.conferences
            .borrow()
            .by_id
            .get(&id)
            .cloned()
            .ok_or_else(|| Fault::new(Code::UnknownConferenceId, format!("there is no conference {id}")))
    }

    /// The operation a client means. An operation does not choose the engine, so its high byte is not looked at alone.
    ///
    /// # Errors
    /// 22 no id, 25 unknown or ended.
    pub fn operation(&self, text: &str) -> Result<Rc<Operation>, Fault> {
        let id = parse(text)?;
        self.operations
            .borrow()
            .by_id
            .get(&id)
            .cloned()
            .ok_or_else(|| Fault::new(Code::NoOperation, format!("operation {id} does not run")))
    }

    /// The connection behind a native id.
    pub fn connection_of(&self, native: &str) -> Option<Rc<Connection>> {
        self.connections.borrow().by_native.get(native).cloned()
    }

    /// The conference behind a native id.
    pub fn conference_of(&self, native: &str) -> Option<Rc<Conference>> {
        self.conferences.borrow().by_native.get(native).cloned()
    }

    /// The connections of a script.
    pub fn connections_of(&self, routing_guid: &str) -> Vec<Rc<Connection>> {
        self.all_of(routing_guid, false)
    }

    /// What stands for a script's operations on conferences.
    pub fn utilities_of(&self, routing_guid: &str) -> Vec<Rc<Connection>> {
        self.all_of(routing_guid, true)
    }

    fn all_of(&self, routing_guid: &str, utility: bool) -> Vec<Rc<Connection>> {
        let connections = self.connections.borrow();
        let mut own: Vec<_> = connections
            .by_id
            .values()
            .filter(|connection| connection.routing_guid == routing_guid && connection.utility == utility)
            .cloned()
            .collect();
        own.sort_unstable_by_key(|connection| connection.id);
        own
    }

    /// A connection has ended; `expired` if it was a reservation that ran out.
    pub fn remove_connection(&self, native: &str, expired: bool) -> Option<Rc<Connection>> {
        let connection = self.connections.borrow_mut().remove(native, |connection| connection.id)?;
        let mut resting = self.resting.borrow_mut();
        resting.add(connection.id);
        if expired {
            resting.expired.insert(connection.id);
        }
        Some(connection)
    }

    /// A conference has ended.
    pub fn remove_conference(&self, native: &str) -> Option<Rc<Conference>> {
        let conference = self.conferences.borrow_mut().remove(native, |conference| conference.id)?;
        self.resting.borrow_mut().add(conference.id);
        Some(conference)
    }

    /// An operation has ended, and with it the utility connection that stood for it.
    pub fn remove_operation(&self, native: &str) -> Option<Rc<Operation>> {
        let operation = self.operations.borrow_mut().remove(native, |operation| operation.id)?;
        self.resting.borrow_mut().add(operation.id);
        if operation.connection.utility {
            self.remove_connection(&operation.connection.native, false);
        }
        Some(operation)
    }

    /// Whether two ids name different engines.
    pub fn engines_differ(one: &str, other: &str) -> bool {
        let engine = |text| parse(text).map(|id| id >> LOCAL_BITS).unwrap_or_default();
        let (one, other) = (engine(one), engine(other));
        one != 0 && other != 0 && one != other
    }

    /// An id of this engine. A high byte of 0 says no engine, and no id of ours has it.
    fn own(&self, text: &str) -> Result<u32, Fault> {
        let id = parse(text)?;
        let engine = id >> LOCAL_BITS;
        if engine != 0 && engine != u32::from(self.mms) {
            let message = format!("{id} belongs to engine {engine}, this is engine {}", self.mms);
            return Err(Fault::new(Code::ResourceUnavailable, message));
        }
        Ok(id)
    }

    /// The next number that is neither in use nor resting.
    fn number(&self) -> u32 {
        let mut resting = self.resting.borrow_mut();
        resting.purge();
        loop {
            let local = (self.next.get() + 1) & LOCAL_MASK;
            self.next.set(local);
            let id = u32::from(self.mms) << LOCAL_BITS | local;
            let used = resting.numbers.contains(&id)
                || self.connections.borrow().by_id.contains_key(&id)
                || self.conferences.borrow().by_id.contains_key(&id)
                || self.operations.borrow().by_id.contains_key(&id);
            if local != 0 && !used {
                return id;
            }
        }
    }
}

impl<T> Table<T> {
    fn add(&mut self, id: u32, native: &str, entry: Rc<T>) {
        self.by_id.insert(id, Rc::clone(&entry));
        self.by_native.insert(native.to_owned(), entry);
    }

    fn remove(&mut self, native: &str, id: impl Fn(&T) -> u32) -> Option<Rc<T>> {
        let entry = self.by_native.remove(native)?;
        self.by_id.remove(&id(&entry));
        Some(entry)
    }
}

impl Resting {
    fn add(&mut self, id: u32) {
        self.purge();
        self.order.push_back((Instant::now() + REST, id));
        self.numbers.insert(id);
    }

    fn purge(&mut self) {
        let now = Instant::now();
        while let Some((until, id)) = self.order.front().copied() {
            if until > now {
                return;
            }
            self.order.pop_front();
            self.numbers.remove(&id);
            self.expired.remove(&id);
        }
    }
}

/// Reads a 32-bit decimal.
fn parse(text: &str) -> Result<u32, Fault> {
    let text = text.trim();
    let decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|_| decimal);
    parsed.ok_or_else(|| Fault::new(Code::InvalidConnectionId, format!("`{text}` is no 32-bit decimal id")))
}

const LOCAL_BITS: u32 = 24;
const LOCAL_MASK: u32 = (1 << LOCAL_BITS) - 1;
/// How long a number rests, and how long an expired reservation is told from an unknown id.
const REST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        Ids::new(3, Duration::from_millis(420))
    }

    fn code<T>(result: Result<T, Fault>) -> Option<u8> {
        result.err().map(|fault| fault.code.number())
    }

    #[tokio::test(start_paused = true)]
    async fn ids_name_the_engine_and_count_from_the_time_of_day() {
        let ids = ids();
        let connection = ids.add_connection("c1", "script", false);
        assert_eq!(connection.id, 3 << 24 | 43);
        assert_eq!(ids.add_conference("f1").id, 3 << 24 | 44);
        assert_eq!(ids.connection(&connection.id.to_string()).expect("known").native, "c1");
        assert_eq!(ids.connection_of("c1").expect("known").id, connection.id);
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_ids_are_told_apart() {
        let ids = ids();
        for text in ["x", "-1", "+5", "4294967296", "1.0", "0x1"] {
            assert_eq!(code(ids.connection(text)), Some(22), "{text}");
            assert_eq!(code(ids.conference(text)), Some(22), "{text}");
        }
        let foreign = (4_u32 << 24 | 1).to_string();
        assert_eq!((code(ids.connection(&foreign)), code(ids.conference(&foreign))), (Some(8), Some(8)));
        let unknown = (3_u32 << 24 | 1).to_string();
        assert_eq!((code(ids.connection(&unknown)), code(ids.conference(&unknown))), (Some(23), Some(24)));
        assert_eq!((code(ids.connection("7")), code(ids.operation("7"))), (Some(23), Some(25)));
        // The id of one kind names nothing of another.
        let conference = ids.add_conference("f1").id.to_string();
        assert_eq!(code(ids.connection(&conference)), Some(23));
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_rests_for_a_minute() {
        let ids = ids();
        let first = ids.add_connection("c1", "", false).id;
        ids.remove_connection("c1", false).expect("known");
        ids.next.set((first - 1) & LOCAL_MASK);
        assert_eq!(ids.add_conference("f1").id, first + 1);
        tokio::time::advance(REST).await;
        ids.next.set((first - 1) & LOCAL_MASK);
        assert_eq!(ids.add_conference("f2").id, first);
    }

    #[tokio::test(start_paused = true)]
    async fn the_counter_wraps_and_leaves_out_zero() {
        let ids = ids();
        ids.next.set(LOCAL_MASK - 1);
        assert_eq!(ids.add_conference("f1").id, 3 << 24 | LOCAL_MASK);
        assert_eq!(ids.add_conference("f2").id, 3 << 24 | 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_reservation_is_12_for_a_minute() {
        let ids = ids();
        let id = ids.add_connection("c1", "", false).id.to_string();
        ids.remove_connection("c1", true).expect("known");
        assert_eq!(code(ids.connection(&id)), Some(12));
        tokio::time::advance(REST).await;
        assert_eq!(code(ids.connection(&id)), Some(23));
    }

    #[tokio::test(start_paused = true)]
    async fn a_utility_connection_goes_with_its_operation() {
        let ids = ids();
        let utility = ids.add_connection("util-1", "s", true);
        let operation = ids.add_operation("o1", Rc::clone(&utility), "Play", "s", Notes::default());
        assert!(ids.connections_of("s").is_empty());
        assert_eq!(ids.operation(&operation.id.to_string()).expect("runs").native, "o1");
        ids.remove_operation("o1").expect("known");
        assert_eq!(code(ids.connection(&utility.id.to_string())), Some(23));
        assert_eq!(code(ids.operation(&operation.id.to_string())), Some(25));
    }

    #[test]
    fn engines_are_compared() {
        let id = |engine: u32| (engine << 24 | 5).to_string();
        assert!(Ids::engines_differ(&id(1), &id(2)));
        assert!(!Ids::engines_differ(&id(1), &id(1)));
        assert!(!Ids::engines_differ(&id(1), "5") && !Ids::engines_differ("x", &id(1)));
    }
}
