//! stub
#[derive(Debug)]
pub(crate) struct Exec;
