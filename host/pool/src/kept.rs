//! The plan that a model was placed by the last time, kept in a file: machines that have its layers need
//! not be sent them again, as long as they get the same ones.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tightwad_core::{PoolSpec, hexadecimal, user_cache};
use tightwad_engine::pool::ModelShape;
use tightwad_modes::{Machine, Plan, Share};

/// A plan by the names of machines, which outlive their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    shares: Vec<(String, u32)>,
    output_here: bool,
}

/// Where the plan of one pool is kept.
pub(crate) struct KeptPlan(Option<PathBuf>);

impl KeptPlan {
    /// The place for this model on these workers; nowhere for users without a home.
    pub(crate) fn of(spec: &PoolSpec, model: &ModelShape) -> Self {
        let folder = user_cache().map(|cache| cache.join("plans"));
        let workers: Vec<&str> = spec.workers.iter().map(|worker| worker.url.as_str()).collect();
        let sizes: Vec<u64> = model.layers.iter().map(|layer| layer.weights).collect();
        let name = format!(
            "{:?} {} {} {} {} {sizes:?}",
            workers,
            spec.local,
            spec.context.unwrap_or(0),
            spec.slots,
            model.architecture
        );
        let name = hexadecimal(&Sha256::digest(name)[..16]);
        Self(folder.map(|folder| folder.join(format!("{name}.json"))))
    }

    /// The plan, by the numbers of `machines`; `None` where one of its machines is missing.
    pub(crate) fn read(&self, machines: &[Machine]) -> Option<Plan> {
        let kept: Kept = serde_json::from_slice(&std::fs::read(self.0.as_ref()?).ok()?).ok()?;
        kept.plan(machines)
    }

    /// Keeps a plan. One that cannot be kept costs a longer load next time.
    pub(crate) fn write(&self, plan: &Plan, machines: &[Machine]) {
        let Some(path) = &self.0 else { return };
        let Ok(text) = serde_json::to_vec(&Kept::of(plan, machines)) else { return };
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let partial = path.with_extension(format!("{}.part", std::process::id()));
        let written =
            made.and_then(|()| std::fs::write(&partial, text)).and_then(|()| std::fs::rename(&partial, path));
        if let Err(error) = written {
            tracing::debug!(%error, "the plan of a pool cannot be kept");
        }
    }
}

impl Kept {
    fn of(plan: &Plan, machines: &[Machine]) -> Self {
        let named = |share: &Share| Some((machines.get(share.machine as usize)?.name.clone(), share.layers));
        Self { shares: plan.shares.iter().filter_map(named).collect(), output_here: plan.output_here }
    }

    fn plan(&self, machines: &[Machine]) -> Option<Plan> {
        let numbered = |(name, layers): &(String, u32)| {
            let machine = machines.iter().position(|machine| machine.name == *name)?;
            Some(Share { machine: u32::try_from(machine).ok()?, layers: *layers })
        };
        let shares = self.shares.iter().map(numbered).collect::<Option<Vec<Share>>>()?;
        Some(Plan { shares, output_here: self.output_here, token: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str) -> Machine {
        let name = name.to_owned();
        Machine { name, memory: 1, speed: 0, bandwidth: 0, round_trip: 0, here: false, max_layers: 9 }
    }

    #[test]
    fn plans_are_kept_by_name() {
        let shares = vec![Share { machine: 1, layers: 4 }, Share { machine: 0, layers: 2 }];
        let plan = Plan { shares, output_here: true, token: 7 };
        let kept = Kept::of(&plan, &[machine("a"), machine("b")]);
        let again = kept.plan(&[machine("b"), machine("c"), machine("a")]).unwrap();
        assert_eq!(again.shares, [Share { machine: 0, layers: 4 }, Share { machine: 2, layers: 2 }]);
        assert_eq!(kept.plan(&[machine("a")]), None);
    }
}
