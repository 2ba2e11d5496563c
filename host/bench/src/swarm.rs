//! Measures a swarm: from one machine to many, each in its own network namespace with a limited uplink. Also measures
//! pulls that are killed, and one source against `curl`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tightwad_core::Size;
use tightwad_modes::swarm;
use tightwad_netlab::{Forwarding, Machine};

use crate::contest::{ChildProcess, Folder, encrypted_url};

const PORT: u16 = 7712;
const TOKEN: &str = "bench";

/// Measures a swarm: one machine to many, each in its own network namespace with a limited uplink.
#[derive(Debug, clap::Args)]
pub(crate) struct Swarm {
    /// File to spread.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    file: PathBuf,
    /// Numbers of machines that pull at the same time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    pullers: Vec<u8>,
    /// Upload limit of each machine, in bytes per second.
    #[arg(long, default_value = "8M")]
    max_upload_rate: Size,
    /// Greatest size of a piece.
    #[arg(long, default_value = "1M")]
    piece_size: Size,
    /// Also measures libtorrent, by its Python module (package `libtorrent`).
    #[arg(long)]
    torrent: bool,
    /// Number of kills of the puller at random moments. Every fourth kill also hits the seeder.
    #[arg(long, default_value_t = 0)]
    kills: u32,
    /// Compares a pull over loopback without a limit with `curl`, and with reading and hashing the file.
    #[arg(long)]
    loopback: bool,
    /// Uploads of each machine that run at the same time.
    #[arg(long, default_value_t = 4)]
    max_uploads: usize,
    /// Setting of the piece picker, such as order=random. Repeatable.
    #[arg(long)]
    picker_setting: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// The path of this program.
fn executable() -> Result<String> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// Waits for the JSON summary of a pull. The process can continue to seed.
fn wait_for_summary(child: &mut Child) -> Result<Value> {
    let output = child.stdout.take().context("the pull has no output")?;
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
        let folder = Folder::new("swarm")?;
        let file = folder.0.join("model.gguf");
        std::fs::copy(&self.file, &file).with_context(|| format!("cannot copy {}", self.file.display()))?;
        let store = swarm::open_complete(&file, Some("model"), Some(self.piece_size.0), |_| {}).await?;
        let (root, size) = (store.manifest().root().to_string(), store.manifest().size());
        drop(store);
        tokio::task::spawn_blocking(move || {
            if self.loopback {
                self.measure_loopback(&folder.0, &file, &root, size)?;
            }
            if self.kills > 0 {
                self.test_kills(&folder.0, &file, &root, size)?;
            }
            if !self.loopback && self.kills == 0 {
                self.measure_scaling(&folder.0, &file, &root, size)?;
            }
            Ok(())
        })
        .await?
    }

    fn measure_scaling(&self, folder: &Path, file: &Path, root: &str, size: u64) -> Result<()> {
        if !tightwad_netlab::available() {
            bail!("machines are made of network namespaces, which need root and iproute2");
        }
        let _routes = Forwarding::enable().context("machines cannot reach one another")?;
        let machine = |number| Machine::new(number).context("cannot make a network namespace");
        let max_pullers = self.pullers.iter().copied().max().unwrap_or(0);
        // All rounds share the namespaces, because a namespace vanishes only with its last process.
        let machines = (0..=max_pullers).map(machine).collect::<Result<Vec<Machine>>>()?;
        let ideal = size as f64 / self.max_upload_rate.0 as f64;
        let mut seconds_alone = None;
        for pullers in self.pullers.iter().copied() {
            let (seconds, seeder_bytes, first_time) = self.round((folder, file, root), &machines, pullers)?;
            let seconds = seconds.as_secs_f64();
            let seconds_alone = *seconds_alone.get_or_insert(seconds / f64::from(pullers));
            if self.json {
                println!(
                    "{}",
                    json!({"pullers": pullers, "seconds": seconds, "first_done": first_time.as_secs_f64(), "ideal": ideal,
                        "of_ideal": ideal / seconds, "one_after_the_other": seconds_alone * f64::from(pullers),
                        "copies_from_first": seeder_bytes as f64 / size as f64})
                );
                continue;
            }
            if self.torrent {
                let torrent = self.torrent(folder, file, &machines, pullers)?.as_secs_f64();
                println!(
                    "{pullers} pullers: libtorrent took {torrent:6.1} s, {:4.2} times as long",
                    torrent / seconds
                );
            }
            println!(
                "{pullers} pullers: all done after {seconds:6.1} s (the first after {:.1}), {:3.0} % of the ideal {ideal:.1} s; one after the other {:6.1} s; {:4.2} copies from the first seeder",
                first_time.as_secs_f64(),
                100.0 * ideal / seconds,
                seconds_alone * f64::from(pullers),
                seeder_bytes as f64 / size as f64
            );
        }
        Ok(())
    }

    /// All machines pull at the same time. Returns the time of the last pull, the bytes that the seeder sent, and the time
    /// of the first pull.
    fn round(
        &self,
        (folder, file, root): (&Path, &Path, &str),
        machines: &[Machine],
        pullers: u8,
    ) -> Result<(Duration, u64, Duration)> {
        let seeder = format!("{}:{PORT}", machines[0].address());
        let mut command = machines[0].command(&executable()?);
        command.args(["swarm", "seed", "--no-announce", "--listen", &seeder, "--token", TOKEN]);
        command
            .args([
                "--max-upload-rate",
                &self.max_upload_rate.0.to_string(),
                "--max-uploads",
                &self.max_uploads.to_string(),
            ])
            .arg(file);
        let _seeding = ChildProcess(command.stderr(Stdio::null()).spawn()?);
        let start = Instant::now();
        let mut waiters = Vec::new();
        for (index, machine) in machines[1..=usize::from(pullers)].iter().enumerate() {
            let peer = encrypted_url(seeder.parse()?)?;
            let mut pull = self.puller(machine, &peer, root, &folder.join(format!("{pullers}-{index}")))?;
            waiters.push(std::thread::spawn(move || {
                let result = wait_for_summary(&mut pull.0);
                // The puller seeds until all pulls are complete.
                (result, start.elapsed(), pull)
            }));
        }
        let (mut last_time, mut seeder_bytes, mut first_time, mut seeding) =
            (Duration::ZERO, 0, Duration::MAX, Vec::new());
        for handle in waiters {
            let Ok((result, time, pull)) = handle.join() else { bail!("a thread failed") };
            let from = result?["from"].as_array().cloned().unwrap_or_default();
            let is_seeder =
                |entry: &&Value| entry["peer"].as_str().is_some_and(|peer| peer.ends_with(&seeder));
            seeder_bytes +=
                from.iter().filter(is_seeder).filter_map(|entry| entry["bytes"].as_u64()).sum::<u64>();
            (last_time, first_time) = (last_time.max(time), first_time.min(time));
            seeding.push(pull);
        }
        Ok((last_time, seeder_bytes, first_time))
    }

    /// Runs the same pulls with libtorrent. Returns the time of the last pull.
    fn torrent(&self, folder: &Path, file: &Path, machines: &[Machine], pullers: u8) -> Result<Duration> {
        let (script, torrent) = (folder.join("torrent.py"), folder.join("model.torrent"));
        std::fs::write(&script, include_str!("torrent.py"))?;
        let piece = self.piece_size.0.to_string();
        let mut make_torrent = Command::new("python3");
        make_torrent.arg(&script).arg("make").arg(file).args([&piece]).arg(&torrent);
        if !make_torrent.status().context("python3 cannot be started")?.success() {
            bail!("cannot make a torrent. Install the Python package libtorrent.");
        }
        let addresses: Vec<String> =
            machines.iter().map(|machine| format!("{}:{}", machine.address(), PORT + 1)).collect();
        let peer = |number: usize, folder: &Path| -> Result<ChildProcess> {
            std::fs::create_dir_all(folder)?;
            let mut command = machines[number].command("python3");
            command.arg(&script).arg("peer").arg(&torrent).arg(folder).arg(&addresses[number]);
            command.arg(self.max_upload_rate.0.to_string());
            command.args(&addresses[..number]).stdout(Stdio::piped()).stderr(Stdio::null());
            Ok(ChildProcess(command.spawn()?))
        };
        let mut seeder = peer(0, file.parent().unwrap_or(folder))?;
        // The pulls start after the seeder has hashed its file.
        wait_for_summary(&mut seeder.0)?;
        let start = Instant::now();
        let peers = (1..=usize::from(pullers))
            .map(|number| peer(number, &folder.join(format!("t{pullers}-{number}"))));
        let mut peers = peers.collect::<Result<Vec<ChildProcess>>>()?;
        for peer in &mut peers {
            wait_for_summary(&mut peer.0)?;
        }
        Ok(start.elapsed())
    }

    /// Starts a pull that also seeds. Each pull has its own folder, because a pull reuses files of its folder.
    fn puller(&self, machine: &Machine, seeder: &str, root: &str, folder: &Path) -> Result<ChildProcess> {
        std::fs::create_dir_all(folder)?;
        let mut command = machine.command(&executable()?);
        command.args(["swarm", "pull", root, "--json", "--peer", seeder, "--token", TOKEN, "--keep-seeding"]);
        command.args(["--listen", &format!("{}:{PORT}", machine.address()), "--seed-token", TOKEN]);
        command.args([
            "--max-upload-rate",
            &self.max_upload_rate.0.to_string(),
            "--max-uploads",
            &self.max_uploads.to_string(),
        ]);
        for pair in &self.picker_setting {
            command.args(["--picker-setting", pair]);
        }
        command.arg("--output").arg(folder.join("model.gguf"));
        Ok(ChildProcess(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    fn seed(&self, file: &Path, listen: &str, up: Option<u64>) -> Result<ChildProcess> {
        let mut command = Command::new(executable()?);
        command.args(["swarm", "seed", "--no-announce", "--listen", listen]).arg(file);
        if let Some(up) = up {
            command.args(["--max-upload-rate", &up.to_string()]);
        }
        let seeder = ChildProcess(command.stderr(Stdio::null()).spawn()?);
        // A pull fails immediately if its only peer does not listen yet.
        while std::net::TcpStream::connect(listen).is_err() {
            std::thread::yield_now();
        }
        Ok(seeder)
    }

    fn pull(&self, root: &str, seeder: &str, to: &Path) -> Result<ChildProcess> {
        let mut command = Command::new(executable()?);
        command.args(["swarm", "pull", root, "--json", "--peer", seeder, "--output"]).arg(to);
        Ok(ChildProcess(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    /// Kills the puller at random moments, and every fourth time also the seeder. Compares each complete file, and pulls it
    /// again.
    fn test_kills(&self, folder: &Path, file: &Path, root: &str, size: u64) -> Result<()> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let output = folder.join("killed").join("model.gguf");
        let mut seeder = self.seed(file, &address, Some(self.max_upload_rate.0))?;
        // About four kills per file.
        let max_run_seconds = 0.5 * size as f64 / self.max_upload_rate.0 as f64;
        let (mut kills, mut equal_files, mut complete_files) = (0, 0, 0);
        while kills < self.kills {
            let mut pull = self.pull(root, &address, &output)?;
            let deadline = Instant::now() + Duration::from_secs_f64(fastrand::f64() * max_run_seconds);
            while Instant::now() < deadline && pull.0.try_wait()?.is_none() {
                std::thread::yield_now();
            }
            if pull.0.try_wait()?.is_none() {
                drop(pull);
                kills += 1;
                if kills % 4 == 0 {
                    drop(seeder);
                    seeder = self.seed(file, &address, Some(self.max_upload_rate.0))?;
                }
                if kills < self.kills {
                    continue;
                }
                pull = self.pull(root, &address, &output)?;
            }
            let result = wait_for_summary(&mut pull.0)?;
            complete_files += 1;
            let is_equal = std::fs::read(file)? == std::fs::read(&output)?;
            equal_files += u32::from(is_equal);
            println!(
                "{}",
                json!({"kills": kills, "right": is_equal, "local_bytes": result["local_bytes"], "fetched_bytes": result["fetched_bytes"]})
            );
            drop(pull);
            std::fs::remove_dir_all(folder.join("killed"))?;
        }
        drop(seeder);
        println!("{}", json!({"kills": kills, "files": complete_files, "right": equal_files}));
        Ok(())
    }

    /// Compares an unlimited pull from one seeder with `curl` and `sha256sum`.
    fn measure_loopback(&self, root_folder: &Path, file: &Path, root: &str, size: u64) -> Result<()> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let _seeder = self.seed(file, &address, None)?;
        let web_port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let folder = file.parent().unwrap_or(root_folder);
        let mut server = Command::new("python3");
        server.args(["-m", "http.server", &web_port, "--bind", "127.0.0.1", "--directory"]).arg(folder);
        let _web = ChildProcess(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        for round in 0..3 {
            let pull = |peer: &str, name: &str| -> Result<(f64, Value)> {
                let output = root_folder.join(format!("{name}-{round}")).join("model.gguf");
                let start = Instant::now();
                let result = wait_for_summary(&mut self.pull(root, peer, &output)?.0)?;
                Ok((start.elapsed().as_secs_f64(), result))
            };
            let (pull_seconds, result) = pull(&address, "loopback")?;
            let (encrypted_seconds, _) = pull(&encrypted_url(address.parse()?)?, "encrypted")?;
            let start = Instant::now();
            let url = format!("http://127.0.0.1:{web_port}/model.gguf");
            let copy = root_folder.join("curl.gguf");
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--retry-connrefused", "--retry", "5", "--output"]).arg(&copy).arg(&url);
            let curl = curl.status().context("curl cannot be started")?;
            let curl_seconds = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let sha256sum = Command::new("sha256sum").arg(&copy).stdout(Stdio::null()).status()?;
            let hash_seconds = start.elapsed().as_secs_f64();
            println!(
                "{}",
                json!({"pulled": pull_seconds, "encrypted": encrypted_seconds, "encrypted_ratio": pull_seconds / encrypted_seconds, "curl": curl_seconds, "sha256sum": hash_seconds, "against_curl_and_hash": (curl_seconds + hash_seconds) / pull_seconds,
                    "mib_per_second": size as f64 / pull_seconds / f64::from(1 << 20), "fetched_bytes": result["fetched_bytes"],
                    "ok": curl.success() && sha256sum.success()})
            );
        }
        Ok(())
    }
}
