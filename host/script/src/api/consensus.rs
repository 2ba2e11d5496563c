//! `tw.consensus{}`.

use std::path::Path;

use mlua::{Lua, Table};
use tightwad_core::OnFailure;

use crate::api::plugins::plugin;
use crate::api::stack;
use crate::factory::ConsensusSpec;
use crate::keys::{Fields, Schema};
use crate::table_error::TableError;

const FUNCTION: &str = "tw.consensus";

pub(crate) const CONSENSUS: Schema = Schema {
    name: FUNCTION,
    keys: &[
        "target",
        "drafters",
        "rule",
        "max_draft_tokens",
        "audit_rate",
        "min_agreement",
        "quorum",
        "min_weight",
        "translate",
        "policy",
        "policy_sha256",
        "on_policy_failure",
        "driver",
        "driver_sha256",
        "settings",
    ],
};

const RULES: [&str; 4] = ["strict", "majority", "any_disagree", "hedge"];

/// Reads the options of `tw.consensus{}`.
pub(crate) fn spec(lua: &Lua, table: &Table, folder: &Path) -> Result<ConsensusSpec, TableError> {
    let fields = Fields::new(lua, table, &CONSENSUS)?;
    let (target, drafters) = stack::target_and_drafters(lua, &fields, FUNCTION, None)?;
    if !target.as_target().is_some_and(|target| target.resumes()) {
        let name = target.name();
        return Err(TableError::Refused(format!(
            "'{name}' cannot continue after tokens that it did not choose; use a tw.model{{}}, a tw.node{{}} or a mode over one as 'target'"
        )));
    }
    let mut settings = stack::driver_settings(lua, &fields, FUNCTION)?;
    if let Some(rule) = fields.optional::<String>("rule", "a string")? {
        if !RULES.contains(&rule.as_str()) {
            return Err(TableError::Refused(format!(
                "'rule' in {FUNCTION} can be {}, not '{rule}'",
                RULES.join(", ")
            )));
        }
        settings.insert("rule".to_owned(), rule.into());
    }
    stack::number_setting::<u32>(&fields, &mut settings, "max_draft_tokens", 1..=64, FUNCTION)?;
    let drafter_count = u32::try_from(drafters.len()).unwrap_or(u32::MAX);
    stack::number_setting::<u32>(&fields, &mut settings, "quorum", 1..=drafter_count, FUNCTION)?;
    for key in ["audit_rate", "min_agreement", "min_weight"] {
        stack::number_setting::<f64>(&fields, &mut settings, key, 0.0..=1.0, FUNCTION)?;
    }
    let policy = plugin(&fields, folder, "policy", FUNCTION)?;
    let on_policy_failure = on_policy_failure(&fields, policy.is_some())?;
    let driver = plugin(&fields, folder, "driver", FUNCTION)?;
    Ok(ConsensusSpec { target, drafters, policy, on_policy_failure, driver, settings })
}

fn on_policy_failure(fields: &Fields<'_>, has_policy: bool) -> Result<OnFailure, TableError> {
    match fields.optional::<String>("on_policy_failure", "a string")?.as_deref() {
        Some(_) if !has_policy => {
            Err(TableError::Refused(format!("'on_policy_failure' in {FUNCTION} needs 'policy'")))
        }
        None | Some("verify") => Ok(OnFailure::Verify),
        Some("decode") => Ok(OnFailure::Decode),
        Some("error") => Ok(OnFailure::Error),
        Some(other) => Err(TableError::Refused(format!(
            "'on_policy_failure' in {FUNCTION} can be \"verify\", \"decode\" or \"error\", not '{other}'"
        ))),
    }
}
