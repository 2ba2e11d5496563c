//! A model from one machine to many, each with a network namespace and a limited uplink of its own; what kills
//! cost; and how fast one source is against `curl`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tightwad_core::Size;
use tightwad_modes::swarm;
use tightwad_netlab::{Forwarding, Machine};

use crate::contest::{Folder, Lender};

const PORT: u16 = 7712;
const TOKEN: &str = "bench";

/// A model from one machine to many, and what kills cost.
#[derive(Debug, clap::Args)]
pub(crate) struct Swarm {
    /// The file.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    file: PathBuf,
    /// How many machines want it, at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    pullers: Vec<u8>,
    /// Bytes a second that each machine may send.
    #[arg(long, default_value = "8M")]
    up: Size,
    /// Largest piece.
    #[arg(long, default_value = "1M")]
    piece: Size,
    /// Also lets libtorrent do it, with its module for python3 (package `libtorrent`).
    #[arg(long)]
    torrent: bool,
    /// Kills the puller, and in turn the seeder, so many times at random moments.
    #[arg(long, default_value_t = 0)]
    kills: u32,
    /// Pulls over loopback without a limit, against `curl` of the same file and against reading and hashing it.
    #[arg(long)]
    loopback: bool,
    /// Uploads of each machine that run at a time.
    #[arg(long, default_value_t = 4)]
    uploads: usize,
    /// What the picking plugin is told, such as order=random.
    #[arg(long)]
    set: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

fn own() -> Result<String> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// Waits for the line of a pull that says what it did; it may go on seeding.
fn result_of(child: &mut Child) -> Result<Value> {
    let output = child.stdout.take().context("a pull without output")?;
    for line in BufReader::new(output).lines() {
        let value: Value = serde_json::from_str(&line?)?;
        if value.get("path").is_some() {
            return Ok(value);
        }
    }
    bail!("a pull ended early: {}", child.wait()?)
}

impl Swarm {
    pub(crate) async fn run(self) -> Result<()> {
        let place = Folder::new("swarm")?;
        let file = place.0.join("model.gguf");
        std::fs::copy(&self.file, &file).with_context(|| format!("cannot copy {}", self.file.display()))?;
        let store = swarm::whole(&file, Some("model"), Some(self.piece.0), |_| {}).await?;
        let (root, size) = (store.manifest().root().to_string(), store.manifest().size());
        drop(store);
        tokio::task::spawn_blocking(move || {
            if self.loopback {
                self.loopback(&place.0, &file, &root, size)?;
            }
            if self.kills > 0 {
                self.killed(&place.0, &file, &root, size)?;
            }
            if !self.loopback && self.kills == 0 {
                self.scaling(&place.0, &file, &root, size)?;
            }
            Ok(())
        })
        .await?
    }

    fn scaling(&self, place: &Path, file: &Path, root: &str, size: u64) -> Result<()> {
        if !tightwad_netlab::available() {
            bail!("machines are made of network namespaces, which need root and iproute2");
        }
        let _routes = Forwarding::on().context("machines cannot reach one another")?;
        let machine = |number| Machine::new(number).context("cannot make a network namespace");
        let most = self.pullers.iter().copied().max().unwrap_or(0);
        // For all rounds: a namespace is gone only when its last process is.
        let machines = (0..=most).map(machine).collect::<Result<Vec<Machine>>>()?;
        let ideal = size as f64 / self.up.0 as f64;
        let mut alone = None;
        for pullers in self.pullers.iter().copied() {
            let (took, first, fastest) = self.round((place, file, root), &machines, pullers)?;
            let took = took.as_secs_f64();
            let alone = *alone.get_or_insert(took / f64::from(pullers));
            if self.json {
                println!(
                    "{}",
                    json!({"pullers": pullers, "seconds": took, "first_done": fastest.as_secs_f64(), "ideal": ideal,
                        "of_ideal": ideal / took, "one_after_the_other": alone * f64::from(pullers),
                        "copies_from_first": first as f64 / size as f64})
                );
                continue;
            }
            if self.torrent {
                let torrent = self.torrent(place, file, &machines, pullers)?.as_secs_f64();
                println!(
                    "{pullers} pullers: libtorrent took {torrent:6.1} s, {:4.2} times as long",
                    torrent / took
                );
            }
            println!(
                "{pullers} pullers: all done after {took:6.1} s (the first after {:.1}), {:3.0} % of the ideal {ideal:.1} s; one after the other {:6.1} s; {:4.2} copies from the first seeder",
                fastest.as_secs_f64(),
                100.0 * ideal / took,
                alone * f64::from(pullers),
                first as f64 / size as f64
            );
        }
        Ok(())
    }

    /// All pull at once: until the last one is done, bytes that the first seeder sent, until the first is done.
    fn round(
        &self,
        (place, file, root): (&Path, &Path, &str),
        machines: &[Machine],
        pullers: u8,
    ) -> Result<(Duration, u64, Duration)> {
        let seeder = format!("{}:{PORT}", machines[0].address());
        let mut command = machines[0].command(&own()?);
        command.args(["swarm", "seed", "--quiet", "--listen", &seeder, "--token", TOKEN]);
        command.args(["--up", &self.up.0.to_string(), "--uploads", &self.uploads.to_string()]).arg(file);
        let _seeding = Lender(command.stderr(Stdio::null()).spawn()?);
        let start = Instant::now();
        let mut waiting = Vec::new();
        for (index, machine) in machines[1..=usize::from(pullers)].iter().enumerate() {
            let mut pull = self.puller(machine, &seeder, root, &place.join(format!("{pullers}-{index}")))?;
            waiting.push(std::thread::spawn(move || {
                let result = result_of(&mut pull.0);
                // It seeds on until all are done.
                (result, start.elapsed(), pull)
            }));
        }
        let (mut last, mut first, mut fastest, mut done) = (Duration::ZERO, 0, Duration::MAX, Vec::new());
        for one in waiting {
            let Ok((result, took, pull)) = one.join() else { bail!("a thread failed") };
            let from = result?["from"].as_array().cloned().unwrap_or_default();
            let is_first = |one: &&Value| one["peer"].as_str().is_some_and(|peer| peer.ends_with(&seeder));
            first += from.iter().filter(is_first).filter_map(|one| one["bytes"].as_u64()).sum::<u64>();
            (last, fastest) = (last.max(took), fastest.min(took));
            done.push(pull);
        }
        Ok((last, first, fastest))
    }

    /// The same by BitTorrent: until the last one is done.
    fn torrent(&self, place: &Path, file: &Path, machines: &[Machine], pullers: u8) -> Result<Duration> {
        let (script, torrent) = (place.join("torrent.py"), place.join("model.torrent"));
        std::fs::write(&script, include_str!("torrent.py"))?;
        let piece = self.piece.0.to_string();
        let mut make = Command::new("python3");
        make.arg(&script).arg("make").arg(file).args([&piece]).arg(&torrent);
        if !make.status().context("python3 cannot be started")?.success() {
            bail!("libtorrent made no torrent: is its module for python3 installed?");
        }
        let addresses: Vec<String> =
            machines.iter().map(|machine| format!("{}:{}", machine.address(), PORT + 1)).collect();
        let peer = |number: usize, folder: &Path| -> Result<Lender> {
            std::fs::create_dir_all(folder)?;
            let mut command = machines[number].command("python3");
            command.arg(&script).arg("peer").arg(&torrent).arg(folder).arg(&addresses[number]);
            command.arg(self.up.0.to_string());
            command.args(&addresses[..number]).stdout(Stdio::piped()).stderr(Stdio::null());
            Ok(Lender(command.spawn()?))
        };
        let mut seeder = peer(0, file.parent().unwrap_or(place))?;
        // It looks through its file first.
        result_of(&mut seeder.0)?;
        let start = Instant::now();
        let peers = (1..=usize::from(pullers))
            .map(|number| peer(number, &place.join(format!("t{pullers}-{number}"))));
        let mut peers = peers.collect::<Result<Vec<Lender>>>()?;
        for one in &mut peers {
            result_of(&mut one.0)?;
        }
        Ok(start.elapsed())
    }

    /// A machine that pulls, and seeds what it has. It has a folder of its own: neighbours would be used.
    fn puller(&self, machine: &Machine, seeder: &str, root: &str, folder: &Path) -> Result<Lender> {
        std::fs::create_dir_all(folder)?;
        let mut command = machine.command(&own()?);
        command.args(["swarm", "pull", root, "--json", "--peer", seeder, "--token", TOKEN, "--stay"]);
        command.args(["--listen", &format!("{}:{PORT}", machine.address()), "--seed-token", TOKEN]);
        command.args(["--up", &self.up.0.to_string(), "--uploads", &self.uploads.to_string()]);
        for pair in &self.set {
            command.args(["--set", pair]);
        }
        command.arg("--output").arg(folder.join("model.gguf"));
        Ok(Lender(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    fn seed(&self, file: &Path, listen: &str, up: Option<u64>) -> Result<Lender> {
        let mut command = Command::new(own()?);
        command.args(["swarm", "seed", "--quiet", "--listen", listen]).arg(file);
        if let Some(up) = up {
            command.args(["--up", &up.to_string()]);
        }
        let seeder = Lender(command.stderr(Stdio::null()).spawn()?);
        // A pull whose only peer does not listen yet would end at once.
        while std::net::TcpStream::connect(listen).is_err() {
            std::thread::yield_now();
        }
        Ok(seeder)
    }

    fn pull(&self, root: &str, seeder: &str, to: &Path) -> Result<Lender> {
        let mut command = Command::new(own()?);
        command.args(["swarm", "pull", root, "--json", "--peer", seeder, "--output"]).arg(to);
        Ok(Lender(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    /// Kills the puller at random moments, and every fourth time the seeder too; a file that is complete is
    /// compared, and pulled anew.
    fn killed(&self, place: &Path, file: &Path, root: &str, size: u64) -> Result<()> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let to = place.join("killed").join("model.gguf");
        let mut seeder = self.seed(file, &free, Some(self.up.0))?;
        // Some four kills a file.
        let longest = 0.5 * size as f64 / self.up.0 as f64;
        let (mut kills, mut right, mut files) = (0, 0, 0);
        while kills < self.kills {
            let mut pull = self.pull(root, &free, &to)?;
            let until = Instant::now() + Duration::from_secs_f64(fastrand::f64() * longest);
            while Instant::now() < until && pull.0.try_wait()?.is_none() {
                std::thread::yield_now();
            }
            if pull.0.try_wait()?.is_none() {
                drop(pull);
                kills += 1;
                if kills % 4 == 0 {
                    drop(seeder);
                    seeder = self.seed(file, &free, Some(self.up.0))?;
                }
                if kills < self.kills {
                    continue;
                }
                pull = self.pull(root, &free, &to)?;
            }
            let result = result_of(&mut pull.0)?;
            files += 1;
            let whole = std::fs::read(file)? == std::fs::read(&to)?;
            right += u32::from(whole);
            println!(
                "{}",
                json!({"kills": kills, "right": whole, "here": result["here"], "fetched": result["fetched"]})
            );
            drop(pull);
            std::fs::remove_dir_all(place.join("killed"))?;
        }
        drop(seeder);
        println!("{}", json!({"kills": kills, "files": files, "right": right}));
        Ok(())
    }

    /// One source, no limit: against `curl`, and against reading and hashing.
    fn loopback(&self, place: &Path, file: &Path, root: &str, size: u64) -> Result<()> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let _seeder = self.seed(file, &free, None)?;
        let web = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let folder = file.parent().unwrap_or(place);
        let mut server = Command::new("python3");
        server.args(["-m", "http.server", &web, "--bind", "127.0.0.1", "--directory"]).arg(folder);
        let _web = Lender(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        for round in 0..3 {
            let to = place.join(format!("loopback-{round}")).join("model.gguf");
            let start = Instant::now();
            let result = result_of(&mut self.pull(root, &free, &to)?.0)?;
            let pulled = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let url = format!("http://127.0.0.1:{web}/model.gguf");
            let copy = place.join("curl.gguf");
            let mut curled = Command::new("curl");
            curled.args(["--silent", "--retry-connrefused", "--retry", "5", "--output"]).arg(&copy).arg(&url);
            let curled = curled.status().context("curl cannot be started")?;
            let curl = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let hashed = Command::new("sha256sum").arg(&copy).stdout(Stdio::null()).status()?;
            let hash = start.elapsed().as_secs_f64();
            println!(
                "{}",
                json!({"pulled": pulled, "curl": curl, "sha256sum": hash, "against_curl_and_hash": (curl + hash) / pulled,
                    "mib_a_second": size as f64 / pulled / f64::from(1 << 20), "fetched": result["fetched"],
                    "ok": curled.success() && hashed.success()})
            );
        }
        Ok(())
    }
}
