//! One row of the suite: a name and what it does, on a server of its own.

use ringbridge_control::config::Config;

use crate::rig::Rig;

/// What a row does on a server as it is by default, by name.
pub(crate) type Plain = (&'static str, fn(&mut Rig));

/// A row.
pub(crate) struct Row {
    /// `module::what`.
    pub(crate) name: String,
    change: Box<dyn FnOnce(&mut Config) + Send>,
    run: Box<dyn FnOnce(&mut Rig) + Send>,
}

impl Row {
    /// A row on a server as it is by default.
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce(&mut Rig) + Send + 'static) -> Self {
        Self { name: name.into(), change: Box::new(|_| {}), run: Box::new(run) }
    }

    /// The same on a server that is configured otherwise.
    pub(crate) fn on(mut self, change: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        self.change = Box::new(change);
        self
    }

    /// Runs it.
    pub(crate) fn run(self) {
        let mut rig = Rig::start(self.change);
        (self.run)(&mut rig);
        rig.check();
    }
}
