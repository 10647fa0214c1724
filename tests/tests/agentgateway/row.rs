//! One row of the suite: a name and what it does, at a desk of its own.

use std::sync::Arc;

use crate::rig::{Desk, World};

/// A row, by name.
pub(crate) type Plain = (&'static str, fn(&Desk));

/// A row.
pub(crate) struct Row {
    /// `module::what`.
    pub(crate) name: String,
    run: Box<dyn FnOnce(&Desk) + Send>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce(&Desk) + Send + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    /// Rows that are written out one by one.
    pub(crate) fn plain(module: &str, rows: &'static [Plain]) -> Vec<Self> {
        rows.iter().map(|(name, run)| Self::new(format!("{module}::{name}"), run)).collect()
    }

    /// Runs it.
    pub(crate) fn run(self, world: &Arc<World>) {
        let desk = Desk::open(world);
        (self.run)(&desk);
    }
}
