//! `tightwad pair`: makes two machines known to each other by a short code.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use tightwad_net::hostname;
use tightwad_net::tls::{
    CODE_LIFETIME, Identity, PairedMachine, PairedMachines, PairingCode, host_pairing, join_pairing,
};

use crate::cli::listen;

/// The port of `tightwad pair`.
const PORT: u16 = 7713;

/// Makes two machines known to each other by a short code. After that they need no token.
///
/// Run `tightwad pair` on one machine. It shows a code. Run `tightwad pair HOST` on the other one, and type the code.
#[derive(Debug, clap::Args)]
pub(crate) struct Pair {
    /// The machine that shows the code: HOST or HOST:PORT. Without it, this machine shows a code.
    #[arg(conflicts_with = "listen")]
    host: Option<String>,
    /// Address to wait at for the other machine.
    #[arg(long, value_name = "ADDR", default_value_t = format!("0.0.0.0:{PORT}"))]
    listen: String,
    /// Lists the paired machines.
    #[arg(long, conflicts_with_all = ["host", "remove"])]
    list: bool,
    /// Removes a paired machine, by its name or its fingerprint.
    #[arg(long, value_name = "MACHINE", conflicts_with = "host")]
    remove: Option<String>,
}

impl Pair {
    pub(crate) async fn run(self) -> Result<()> {
        let (identity, paired) = (Identity::of_user()?, PairedMachines::of_user());
        if self.list {
            println!("this machine  {}", identity.fingerprint());
            paired.list().iter().for_each(|machine| println!("{}  {}", machine.name, machine.fingerprint));
            return Ok(());
        }
        if let Some(machine) = &self.remove {
            return match paired.remove(machine)? {
                0 => bail!("no paired machine is called '{machine}'. `tightwad pair --list` shows them."),
                _ => Ok(()),
            };
        }
        let machine = match &self.host {
            Some(host) => join(host, &identity).await?,
            None => self.show_code(&identity).await?,
        };
        let PairedMachine { name, fingerprint } = &machine;
        eprintln!("paired with {name}, whose key is {fingerprint}");
        paired.add(machine).context("cannot store the paired machine")
    }

    /// Shows a code and waits for the other machine.
    async fn show_code(&self, identity: &Identity) -> Result<PairedMachine> {
        let addresses = listen::resolve(&self.listen).await?;
        let listener = listen::listen(&self.listen, &addresses).await?;
        let code = PairingCode::random();
        let minutes = CODE_LIFETIME.as_secs() / 60;
        eprintln!(
            "On the other machine, run `tightwad pair {}` and type the code {} within {minutes} minutes.",
            listen::reachable(listener.local_addr()?),
            code.shown()
        );
        Ok(host_pairing(listener, identity, &hostname(), &code, CODE_LIFETIME).await?)
    }
}

/// Asks for the code of `host`, and pairs with it.
async fn join(host: &str, identity: &Identity) -> Result<PairedMachine> {
    let has_port =
        host.rsplit_once(':').is_some_and(|(name, port)| !name.ends_with(':') && port.parse::<u16>().is_ok());
    let address = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
    if std::io::stdin().is_terminal() {
        eprint!("code: ");
        std::io::stderr().flush()?;
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let code: PairingCode = line.trim().parse()?;
    Ok(join_pairing(&address, identity, &hostname(), &code).await?)
}
