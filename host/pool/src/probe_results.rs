//! The results of probing the workers of a pool.

use std::collections::HashMap;

use crate::probe::{ProbedWorker, WorkerError};

/// The results of probing all workers, by the index of the worker in the script.
pub(crate) struct ProbeResults {
    pub usable: Vec<(usize, ProbedWorker)>,
    pub failed: Vec<(usize, WorkerError)>,
}

impl ProbeResults {
    /// The first error of a worker that answers but cannot be used.
    pub(crate) fn unusable(&self) -> Option<WorkerError> {
        let unusable = self.failed.iter().find(|(_, error)| matches!(error, WorkerError::Unusable(_)));
        unusable.map(|(_, error)| error.clone())
    }

    /// Removes workers that have another address of an earlier worker, so that their memory counts once. Returns the
    /// index of each removed worker with the index of the earlier one.
    pub(crate) fn remove_duplicates(&mut self) -> Vec<(usize, usize)> {
        let mut instances: HashMap<String, usize> = HashMap::new();
        let mut duplicates = Vec::new();
        self.usable.retain(|(index, worker)| {
            if worker.info.instance.is_empty() {
                return true;
            }
            let original = *instances.entry(worker.info.instance.clone()).or_insert(*index);
            if original != *index {
                duplicates.push((*index, original));
            }
            original == *index
        });
        duplicates
    }

    /// The errors of all failed workers.
    pub(crate) fn errors(&self) -> String {
        let errors: Vec<String> = self.failed.iter().map(|(_, error)| error.to_string()).collect();
        errors.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::worker::info::WorkerInfo;

    fn probed(index: usize, instance: &str) -> (usize, ProbedWorker) {
        let info = WorkerInfo {
            tightwad: String::new(),
            protocol: 1,
            rpc: (7, 0),
            device: String::new(),
            gpu: false,
            threads: 1,
            memory: 1,
            free: 1,
            memory_bandwidth: 1,
            cached: 0,
            pools: 0,
            instance: instance.to_owned(),
        };
        (index, ProbedWorker { info, round_trip: Duration::ZERO, bandwidth: 1 })
    }

    #[test]
    fn worker_with_two_addresses_counts_once() {
        let usable = vec![probed(0, "a"), probed(2, ""), probed(3, "a"), probed(4, ""), probed(5, "b")];
        let mut results = ProbeResults { usable, failed: Vec::new() };
        assert_eq!(results.remove_duplicates(), [(3, 0)]);
        let remaining: Vec<usize> = results.usable.iter().map(|(index, _)| *index).collect();
        assert_eq!(remaining, [0, 2, 4, 5]);
    }
}
