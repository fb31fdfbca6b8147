//! stub
#[derive(Debug)]
pub(crate) struct Link;
