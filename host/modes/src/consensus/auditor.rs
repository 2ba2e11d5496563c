//! Audits: after an answer, the target checks the tokens that were committed without it. No request waits for an audit.

use std::sync::Arc;

use tightwad_core::{Backend, BackendError, Draft, Request, ResumePoint, SharedBackend};
use tokio::sync::mpsc;

use crate::consensus::grant::{ActiveRule, Agreement};
use crate::decoding::job::UnverifiedSpan;

/// The number of answers that can wait for their audit. Further answers are not audited.
const MAX_QUEUED_AUDITS: usize = 64;

/// An answer with the spans to audit.
struct Audit {
    request: Arc<Request>,
    answer: ResumePoint,
    spans: Vec<UnverifiedSpan>,
}

/// Audits one answer after the other. Its task ends when the auditor is dropped.
pub(crate) struct Auditor(mpsc::Sender<Audit>);

impl Auditor {
    /// Starts to audit with `target`. Results go to `agreement`; an audit of a rule other than `rule` is stale.
    pub(crate) fn start(target: SharedBackend, agreement: Arc<Agreement>, rule: Arc<ActiveRule>) -> Self {
        let (sender, mut audits) = mpsc::channel::<Audit>(MAX_QUEUED_AUDITS);
        tokio::spawn(async move {
            while let Some(audit) = audits.recv().await {
                for span in &audit.spans {
                    match audit_span(target.as_ref(), &audit, span).await {
                        Ok((audited, agreed)) => {
                            agreement.record(audited, agreed, span.rule != rule.name());
                        }
                        Err(error) => tracing::warn!(%error, "an audit failed"),
                    }
                }
            }
        });
        Self(sender)
    }

    /// Queues an audit of the `spans` of an answer.
    pub(crate) fn submit(&self, request: &Arc<Request>, answer: ResumePoint, spans: Vec<UnverifiedSpan>) {
        if !spans.is_empty() {
            // If the queue is full, the answer is not audited: requests come before audits.
            let _ = self.0.try_send(Audit { request: request.clone(), answer, spans });
        }
    }
}

/// Verifies a span, each token after the tokens that precede it in the answer. Returns the number of audited tokens,
/// and the number of audited tokens that the target would have chosen.
async fn audit_span(
    target: &dyn Backend,
    audit: &Audit,
    span: &UnverifiedSpan,
) -> Result<(u64, u64), BackendError> {
    let (mut audited, mut agreed) = (0, 0);
    while audited < span.tokens.len() {
        let mut output = audit.answer.output[..span.start.min(audit.answer.output.len())].to_vec();
        output.extend(&span.tokens[..audited]);
        let resume = ResumePoint { output, ..audit.answer.clone() };
        let mut opened = target.target()?.open_target(&audit.request, Some(&resume)).await?;
        let proposed = &span.tokens[audited..];
        let verified = opened.session.verify(&Draft::from(proposed.to_vec())).await?;
        // The target drops proposed tokens that leave no room for its own next token. This token can be equal to the
        // first dropped token.
        let committed = verified.committed.iter().map(|committed| committed.token);
        let equal = committed.zip(proposed).take_while(|(committed, token)| committed == *token).count();
        agreed += equal as u64;
        // The target disagrees with the next token, unless the verification ended before that token.
        let cut_short = equal == verified.committed.len() && verified.finish_reason.is_none();
        audited += if cut_short { equal.max(1) } else { equal + 1 };
    }
    Ok((span.tokens.len() as u64, agreed))
}
