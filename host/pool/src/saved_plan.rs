//! Stores the last plan of a pool in a file. Machines that get the same layers again have them in their caches.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tightwad_core::{PoolSpec, to_hex, user_cache_dir};
use tightwad_engine::pool::ModelShape;
use tightwad_modes::{Assignment, Machine, Plan};

/// A plan with the names of machines. Names stay valid when the indexes of machines change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedPlan {
    assignments: Vec<(String, u32)>,
    output_on_host: bool,
}

/// The file that stores the plan of one pool.
pub(crate) struct PlanFile(Option<PathBuf>);

impl PlanFile {
    /// The file for this model on these workers. Users without a home directory have no file.
    pub(crate) fn new(spec: &PoolSpec, model: &ModelShape) -> Self {
        let folder = user_cache_dir().map(|cache| cache.join("plans"));
        let workers: Vec<&str> = spec.workers.iter().map(|worker| worker.url.as_str()).collect();
        let sizes: Vec<u64> = model.layers.iter().map(|layer| layer.weight_bytes).collect();
        let key = format!(
            "{:?} {} {} {} {} {sizes:?}",
            workers,
            spec.include_host,
            spec.context.unwrap_or(0),
            spec.slots,
            model.architecture
        );
        let name = to_hex(&Sha256::digest(key)[..16]);
        Self(folder.map(|folder| folder.join(format!("{name}.json"))))
    }

    /// Reads the plan, with the indexes of `machines`; `None` if one of its machines is missing.
    pub(crate) fn read(&self, machines: &[Machine]) -> Option<Plan> {
        let saved: SavedPlan = serde_json::from_slice(&std::fs::read(self.0.as_ref()?).ok()?).ok()?;
        saved.to_plan(machines)
    }

    /// Writes the plan. A failure is only logged, because the next load then takes longer but works.
    pub(crate) fn write(&self, plan: &Plan, machines: &[Machine]) {
        let Some(path) = &self.0 else { return };
        let Ok(text) = serde_json::to_vec(&SavedPlan::from_plan(plan, machines)) else { return };
        let created = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let partial = path.with_extension(format!("{}.part", std::process::id()));
        let written = created
            .and_then(|()| std::fs::write(&partial, text))
            .and_then(|()| std::fs::rename(&partial, path));
        if let Err(error) = written {
            tracing::debug!(%error, "cannot save the plan of a pool");
        }
    }
}

impl SavedPlan {
    fn from_plan(plan: &Plan, machines: &[Machine]) -> Self {
        let named_assignment = |assignment: &Assignment| {
            Some((machines.get(assignment.machine as usize)?.name.clone(), assignment.layers))
        };
        Self {
            assignments: plan.assignments.iter().filter_map(named_assignment).collect(),
            output_on_host: plan.output_on_host,
        }
    }

    fn to_plan(&self, machines: &[Machine]) -> Option<Plan> {
        let indexed = |(name, layers): &(String, u32)| {
            let machine = machines.iter().position(|machine| machine.name == *name)?;
            Some(Assignment { machine: u32::try_from(machine).ok()?, layers: *layers })
        };
        let assignments = self.assignments.iter().map(indexed).collect::<Option<Vec<Assignment>>>()?;
        Some(Plan { assignments, output_on_host: self.output_on_host, time_per_token_ns: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str) -> Machine {
        let name = name.to_owned();
        Machine {
            name,
            memory: 1,
            memory_bandwidth: 0,
            link_bandwidth: 0,
            round_trip_ns: 0,
            is_host: false,
            max_layers: 9,
        }
    }

    #[test]
    fn saved_plan_identifies_machines_by_name() {
        let assignments = vec![Assignment { machine: 1, layers: 4 }, Assignment { machine: 0, layers: 2 }];
        let plan = Plan { assignments, output_on_host: true, time_per_token_ns: 7 };
        let saved = SavedPlan::from_plan(&plan, &[machine("a"), machine("b")]);
        let restored = saved.to_plan(&[machine("b"), machine("c"), machine("a")]).unwrap();
        assert_eq!(
            restored.assignments,
            [Assignment { machine: 0, layers: 4 }, Assignment { machine: 2, layers: 2 }]
        );
        assert_eq!(saved.to_plan(&[machine("a")]), None);
    }
}
