//! The speculation mode.
struct Speculation;
impl tightwad_plugin_sdk::ExactMode for Speculation {
    const NAME: &'static str = "speculation";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    fn run(job: &tightwad_plugin_sdk::Job) -> Result<(), String> {
        loop {
            match job.decode(32) {
                Ok(c) if c.finished => return Ok(()),
                Ok(_) => {}
                Err(e) => return tightwad_plugin_sdk::failure(e).map_or(Ok(()), Err),
            }
        }
    }
}
tightwad_plugin_sdk::export_exact_mode!(Speculation);
