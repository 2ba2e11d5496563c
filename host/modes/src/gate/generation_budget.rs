//! The number of answers that the members of a fleet write for one request.

/// The maximum number of answers for one request, per member of the fleet.
const MAX_GENERATIONS_PER_MEMBER: usize = 8;

/// The reason why members cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GenerateError {
    /// The fleet has no such member.
    #[error("there is no member {0}")]
    UnknownMember(usize),
    /// The list names a member twice.
    #[error("member {0} is in the list twice")]
    DuplicateMember(usize),
    /// The members wrote the maximum number of answers.
    #[error("the members of a fleet write at most {max} answers for one request")]
    TooMany {
        /// The maximum.
        max: usize,
    },
}

/// Counts the answers that members began to write for one request.
#[derive(Debug, Default)]
pub(crate) struct GenerationBudget {
    started: usize,
}

impl GenerationBudget {
    /// Counts one answer of each of `members` of a fleet of `fleet_size`, or refuses the list.
    pub(crate) fn start(&mut self, members: &[usize], fleet_size: usize) -> Result<(), GenerateError> {
        let mut named = vec![false; fleet_size];
        for member in members.iter().copied() {
            match named.get_mut(member) {
                None => return Err(GenerateError::UnknownMember(member)),
                Some(true) => return Err(GenerateError::DuplicateMember(member)),
                Some(is_named) => *is_named = true,
            }
        }
        let max = fleet_size * MAX_GENERATIONS_PER_MEMBER;
        if self.started + members.len() > max {
            return Err(GenerateError::TooMany { max });
        }
        self.started += members.len();
        Ok(())
    }
}
