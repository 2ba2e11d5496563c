//! A target with drafters and a driver: the common part of speculation and consensus.
//!
//! Every request is completed. If the driver fails or returns early, plain decoding completes the request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tightwad_core::{
    BackendError, Drafter, OpenedTarget, Outcome, Output, Report, Request, ResumePoint, SharedBackend, Sink,
    decode_to_end,
};
use tightwad_sandbox::{Plugin, PluginError, ReloadablePlugin};

use crate::consensus::grant::UnverifiedGrant;
use crate::decoding::component::ModeDriver;
use crate::decoding::job::{Job, JobResult, Tally, UnverifiedSpan};
use crate::decoding::totals::Totals;
use crate::settings::Settings;

/// The time that a request waits for its drafters to open.
const OPEN_DRAFTER_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct DrivenTarget {
    pub target: SharedBackend,
    pub drafters: Vec<SharedBackend>,
    driver: Arc<ReloadablePlugin<ModeDriver>>,
    settings: Settings,
    /// The state that the driver saved last.
    driver_state: Arc<Mutex<Vec<u8>>>,
    pub totals: Arc<Totals>,
}

/// The result of a request.
pub(crate) struct Answer {
    pub outcome: Outcome,
    /// The prompt and the committed tokens.
    pub resume_point: ResumePoint,
    /// The unverified tokens that the driver wants audited.
    pub audit_spans: Vec<UnverifiedSpan>,
}

impl DrivenTarget {
    pub(crate) fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        driver: Arc<ReloadablePlugin<ModeDriver>>,
        settings: Settings,
    ) -> Self {
        Self { target, drafters, driver, settings, driver_state: Arc::default(), totals: Arc::default() }
    }

    /// Answers a request. With a `grant`, the driver can commit tokens without the target.
    pub(crate) async fn run(
        &self,
        request: &Arc<Request>,
        sink: Sink,
        grant: Option<UnverifiedGrant>,
    ) -> Result<Answer, BackendError> {
        let opened = self.open_target(request, &sink).await?;
        let (prompt, max_tokens) = (opened.prepared.prompt.clone(), opened.prepared.max_tokens);
        let driver = self.driver.current();
        let allowed = driver.breaker().allows();
        let drafters = if allowed { self.open_drafters(&opened).await } else { Vec::new() };
        let available = drafters.iter().filter(|(_, drafter)| drafter.is_some());
        let names = available.map(|(name, _)| name.clone()).collect();
        let output = Output::new(&opened, sink);
        let mut job =
            Job::new(opened.session, drafters, output, self.settings.clone(), self.driver_state.clone());
        if let Some(grant) = grant {
            job = job.with_grant(grant);
        }
        let (job, driver_error) = if allowed { drive(&driver, job).await } else { (job, None) };
        let JobResult { target, mut output, mut tally, failure, audit_spans, races } = job.finish().await;
        self.totals.add_races(races);
        if let Some(failure) = failure {
            self.totals.add(&tally, driver_error.is_some());
            return Err(failure);
        }
        let mut target =
            target.ok_or_else(|| BackendError::failed(self.target.name(), "the target is lost"))?;
        let mut fallback = driver_error.map(|error| error.to_string());
        if !output.is_finished() {
            let reason = fallback.get_or_insert_with(|| fallback_reason(&driver, allowed));
            tracing::warn!(request = request.id, reason, "completing the request by plain decoding");
            let ties = decode_to_end(target.as_mut(), &mut output).await?;
            tally.ties = tally.ties.saturating_add(ties);
        }
        self.totals.add(&tally, fallback.is_some());
        let resume_point = ResumePoint { prompt, output: output.tokens().to_vec(), max_tokens };
        let (finish_reason, usage) = output.finish();
        let plugins = vec![driver.report_entry()];
        let exact = target.is_exact();
        let report = Report { exact, drafters: names, plugins, fallback, ..report_counts(&tally) };
        Ok(Answer { outcome: Outcome { finish_reason, usage, report }, resume_point, audit_spans })
    }

    /// Opens all drafters at the same time. A drafter that does not open stays in the list without a session: the
    /// request does not fail.
    async fn open_drafters(&self, opened: &OpenedTarget) -> Vec<(String, Option<Box<dyn Drafter>>)> {
        let open = |drafter: &'_ SharedBackend| {
            let (drafter, prepared) = (drafter.clone(), opened.prepared.clone());
            async move {
                let opening = async { drafter.drafter()?.open_drafter(&prepared).await };
                let opened = tokio::time::timeout(OPEN_DRAFTER_TIMEOUT, opening).await;
                let name = drafter.name().to_owned();
                match opened {
                    Ok(Ok(opened)) => return (name, Some(opened)),
                    Ok(Err(error)) => {
                        tracing::warn!(drafter = name, %error, "the request runs without this drafter");
                    }
                    Err(_) => tracing::warn!(
                        drafter = name,
                        "the drafter did not open in time; the request runs without it"
                    ),
                }
                (name, None)
            }
        };
        join_all(self.drafters.iter().map(open)).await
    }

    async fn open_target(&self, request: &Arc<Request>, sink: &Sink) -> Result<OpenedTarget, BackendError> {
        let target = self.target.target()?;
        tokio::select! {
            opened = target.open_target(request, None) => opened,
            () = sink.closed() => Err(BackendError::Cancelled),
        }
    }
}

/// Lets the driver run, and records its success or failure. Returns the driver's error.
async fn drive(driver: &ModeDriver, job: Job) -> (Job, Option<PluginError>) {
    let (job, result) = driver.run(job).await;
    driver.record_result(&result);
    (job, result.err())
}

/// A report with the counts of `tally`.
fn report_counts(tally: &Tally) -> Report {
    Report {
        rounds: tally.rounds,
        drafted: tally.drafted,
        accepted: tally.accepted,
        wasted: tally.wasted,
        ties: tally.ties,
        unverified: tally.unverified,
        ..Report::default()
    }
}

/// The reason for plain decoding if the driver reported no error.
fn fallback_reason(driver: &ModeDriver, allowed: bool) -> String {
    let plugin = driver.label().to_owned();
    if allowed {
        format!("plugin {plugin} returned before the target was finished")
    } else {
        PluginError::CircuitOpen { plugin }.to_string()
    }
}
