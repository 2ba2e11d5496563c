//! Audits: the target is asked afterwards about tokens that were committed without it, off every request's
//! way.

use std::sync::Arc;

use tightwad_core::{Backend, BackendError, Draft, Left, Request, SharedBackend};
use tokio::sync::mpsc;

use crate::consensus::skipping::{Agreement, RuleAtWork};
use crate::decoding::job::Skipped;

/// Answers that wait for their audit; more are not audited.
const WAITING: usize = 64;

/// An answer, and what is to be audited of it.
struct Audit {
    request: Arc<Request>,
    left: Left,
    skipped: Vec<Skipped>,
}

/// Asks one after the other; ends when it is dropped.
pub(crate) struct Auditor(mpsc::Sender<Audit>);

impl Auditor {
    /// Notes what `target` says in `agreement`; `rule` is the one at work.
    pub(crate) fn start(target: SharedBackend, agreement: Arc<Agreement>, rule: Arc<RuleAtWork>) -> Self {
        let (sender, mut audits) = mpsc::channel::<Audit>(WAITING);
        tokio::spawn(async move {
            while let Some(audit) = audits.recv().await {
                for skipped in &audit.skipped {
                    match look(target.as_ref(), &audit, skipped).await {
                        Ok((audited, agreed)) => {
                            agreement.note(audited, agreed, skipped.rule != rule.name());
                        }
                        Err(error) => tracing::warn!(%error, "an audit was not possible"),
                    }
                }
            }
        });
        Self(sender)
    }

    /// Has `skipped` tokens of an answer audited.
    pub(crate) fn look_at(&self, request: &Arc<Request>, left: Left, skipped: Vec<Skipped>) {
        if !skipped.is_empty() {
            // What does not fit is not audited: answers come first.
            let _ = self.0.try_send(Audit { request: request.clone(), left, skipped });
        }
    }
}

/// How many of the tokens the target was asked about, and how many it would have chosen, each behind the
/// tokens that really stand before it.
async fn look(target: &dyn Backend, audit: &Audit, skipped: &Skipped) -> Result<(u64, u64), BackendError> {
    let (mut at, mut agreed) = (0, 0);
    while at < skipped.tokens.len() {
        let mut output = audit.left.output[..skipped.at.min(audit.left.output.len())].to_vec();
        output.extend(&skipped.tokens[..at]);
        let left = Left { output, ..audit.left.clone() };
        let mut opened = target.target()?.open_target(&audit.request, Some(&left)).await?;
        let asked = &skipped.tokens[at..];
        let verified = opened.session.verify(&Draft::from(asked.to_vec())).await?;
        // The last token of an answer is no proposal, but it may be the target's own choice.
        let own = verified.committed.iter().map(|committed| committed.token);
        let same = own.zip(asked).take_while(|(own, token)| own == *token).count();
        agreed += same as u64;
        // The one behind is one that the target would not have chosen, unless it was not asked about it.
        let cut_short = same == verified.committed.len() && verified.finish.is_none();
        at += if cut_short { same.max(1) } else { same + 1 };
    }
    Ok((skipped.tokens.len() as u64, agreed))
}
