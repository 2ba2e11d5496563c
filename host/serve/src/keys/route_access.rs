//! The access that a route needs.

use tightwad_core::Right;

/// The access that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteAccess {
    /// The right to chat. The request counts against the limits of its key.
    Generate,
    /// One right.
    Right(Right),
    /// All rights.
    AllRights,
}

impl RouteAccess {
    /// The needed rights.
    pub(crate) fn rights(self) -> &'static [Right] {
        match self {
            Self::Generate | Self::Right(Right::Chat) => &[Right::Chat],
            Self::Right(Right::Manage) => &[Right::Manage],
            Self::Right(Right::Observe) => &[Right::Observe],
            Self::AllRights => &Right::ALL,
        }
    }
}
