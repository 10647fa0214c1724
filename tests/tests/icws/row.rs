//! One row of the suite: a name and what it does.

/// A row.
pub(crate) struct Row {
    /// `module::what`.
    pub(crate) name: String,
    /// What it does.
    pub(crate) run: Box<dyn FnOnce() + Send>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// A row by name.
pub(crate) type Plain = (&'static str, fn());

pub(crate) fn plain(rows: &[Plain]) -> Vec<Row> {
    rows.iter().map(|(name, run)| Row::new(*name, *run)).collect()
}
