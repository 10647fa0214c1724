pub(crate) const ROWS: &[(&str, fn())] = &[];
