//! The functions of `tw`.

pub(crate) mod consensus;
pub(crate) mod gate;
pub(crate) mod log;
pub(crate) mod makers;
pub(crate) mod model;
pub(crate) mod nodes;
pub(crate) mod paths;
pub(crate) mod pooling;
pub(crate) mod serve;
pub(crate) mod speculation;
pub(crate) mod stack;
pub(crate) mod table;
pub(crate) mod text;
