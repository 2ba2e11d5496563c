//! Encrypted machines: how they join, and what an observer of the network sees. Each machine is a network namespace.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tightwad_netlab::{Forwarding, Machine, Proxy};

use super::support::{
    BINARY, PROMPTS, Process, Server, Worker, new_machine, one_core, set_environment, small_model,
};

const TOKEN: &str = "a-long-and-random-token";

/// A machine of its own: a network namespace, and a user with a key.
struct Owner {
    machine: Machine,
    data: tempfile::TempDir,
}

impl Owner {
    fn new() -> Self {
        Self { machine: new_machine(), data: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.machine.command(BINARY);
        set_environment(&mut command).env("XDG_DATA_HOME", self.data.path()).args(arguments);
        command
    }

    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.machine.address().into(), port)
    }

    /// Starts a node on this machine.
    fn node(&self, arguments: &[&str]) -> Process {
        let model = format!("small={}", small_model().display());
        let listen = self.address(7710).to_string();
        let node = [
            "node",
            "--no-announce",
            "--threads",
            "1",
            "--context",
            "1024",
            "--listen",
            &listen,
            "--model",
            &model,
        ];
        Process::start(self.command(&node).args(arguments))
    }

    /// Whether a host on this machine can load a script with the node `node`.
    fn check(&self, node: &str) -> Output {
        let script = format!(
            "local tw = require 'tightwad'\nreturn tw.serve {{ models = {{ m = tw.node {{ {node} }} }} }}"
        );
        let path = self.data.path().join("check.lua");
        std::fs::write(&path, script).unwrap();
        self.command(&["run", "--check", &path.display().to_string()]).output().unwrap()
    }

    /// The error of a host on this machine with the node `node`.
    fn error(&self, node: &str) -> String {
        let output = self.check(node);
        assert!(!output.status.success(), "{node}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The address in the log of a process.
fn url(process: &Process) -> String {
    process.url_at(process.address.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn machines_join_by_their_address_and_by_a_code() {
    let _permit = one_core();
    let _routes = Forwarding::enable().unwrap();
    let (host, second, third) = (Owner::new(), Owner::new(), Owner::new());
    // Two commands: the node prints its address, and a script of the host names it.
    let node = second.node(&["--token", TOKEN]);
    let address = url(&node);
    assert!(address.starts_with("tightwad://") && address.contains('#'), "{address}");
    let joined = host.check(&format!("url = '{address}', token = '{TOKEN}'"));
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    // Without the fingerprint, both machines prove the token.
    let short = address.split('#').next().unwrap();
    assert!(host.check(&format!("url = '{short}', token = '{TOKEN}'")).status.success());

    // A wrong fingerprint, a wrong token, no token, and no encryption are refused, each with one sentence.
    let wrong = format!("{short}#{}", "0".repeat(64));
    let error = host.error(&format!("url = '{wrong}', token = '{TOKEN}'"));
    assert!(error.contains("Another machine answers, or its key was replaced"), "{error}");
    let error = host.error(&format!("url = '{address}', token = 'another-token'"));
    assert!(error.contains("does not accept this token"), "{error}");
    let error = host.error(&format!("url = '{short}'"));
    assert!(error.contains("is unknown. Add #FINGERPRINT"), "{error}");
    let plain = short.replace("tightwad://", "http://");
    let error = host.error(&format!("url = '{plain}', token = '{TOKEN}'"));
    assert!(error.contains("would not be encrypted"), "{error}");
    let error = host.error(&format!("url = '{plain}', token = '{TOKEN}', insecure = true"));
    assert!(error.contains("this server is encrypted"), "{error}");

    // The third machine shows a code, and the host types it. Neither needs a token then.
    let (code, pairing) = show_code(&third);
    assert!(!join(&host, &third, "0000-0000").status.success());
    let joined = join(&host, &third, &code);
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    assert!(pairing.wait_with_output().unwrap().status.success());
    let node = third.node(&[]);
    let short = url(&node).split('#').next().unwrap().to_owned();
    let joined = host.check(&format!("url = '{short}'"));
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    // The second machine is not paired with the third one.
    let error = second.error(&format!("url = '{}'", url(&node)));
    assert!(error.contains("it needs a token"), "{error}");
}

/// Runs `tightwad pair` on `owner`. Returns the code and the process.
fn show_code(owner: &Owner) -> (String, std::process::Child) {
    use std::io::{BufRead, BufReader};
    let listen = owner.address(7713).to_string();
    let mut pairing = owner.command(&["pair", "--listen", &listen]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(pairing.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let code = line.split("the code ").nth(1).and_then(|rest| rest.split(' ').next());
    (code.unwrap_or_else(|| panic!("{line}")).to_owned(), pairing)
}

/// Runs `tightwad pair` with a code on `guest`.
fn join(guest: &Owner, host: &Owner, code: &str) -> Output {
    use std::io::Write;
    let address = host.address(7713).to_string();
    let mut command = guest.command(&["pair", &address]);
    let mut pairing = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(pairing.stdin.take().unwrap(), "{code}").unwrap();
    pairing.wait_with_output().unwrap()
}

/// What an observer sees of a node's session, a pool's load and a pull.
async fn capture(encrypted: bool) -> Vec<u8> {
    let (arguments, insecure): (&[&str], _) =
        if encrypted { (&[], "") } else { (&["--insecure"], ", insecure = true") };
    let url_at = |process: &Process, link: &Proxy| {
        if encrypted { process.url_at(link.address()) } else { format!("http://{}", link.address()) }
    };
    let (lender, seeding) = (Owner::new(), Owner::new());
    let node = lender.node(&[&["--token", TOKEN], arguments].concat());
    let worker = Worker::start_with_token(new_machine(), TOKEN, arguments);
    let model = small_model();
    let listen = seeding.address(7712).to_string();
    let seed = [
        "swarm",
        "seed",
        &model.display().to_string(),
        "--no-announce",
        "--listen",
        &listen,
        "--token",
        TOKEN,
    ];
    let seeder = Process::start(seeding.command(&seed).args(arguments));
    let mut links = Vec::new();
    for address in [&node.address, &worker.address.to_string(), &seeder.address] {
        let link = Proxy::start("127.0.0.1:0".parse().unwrap(), address.parse().unwrap()).await.unwrap();
        link.faults().start_capture();
        links.push(link);
    }
    let script = format!(
        r#"local tw = require "tightwad"
return tw.serve {{ models = {{
  away = tw.node {{ url = "{}", token = "{TOKEN}"{insecure} }},
  pool = tw.pooling {{ model = "{}", context = 1024, workers = {{ "{}" }}, token = "{TOKEN}"{insecure} }},
}} }}"#,
        url_at(&node, &links[0]),
        model.display(),
        url_at(worker.process.as_ref().unwrap(), &links[1]),
    );
    let server = Server::start(&script);
    for name in ["away", "pool"] {
        server.ask(name, PROMPTS[0], json!({"max_tokens": 8})).await;
    }
    let log = seeder.log_text();
    let root = log.lines().find_map(|line| line.split_once(".gguf is ")).unwrap().1.to_owned();
    let folder = tempfile::tempdir().unwrap();
    let peer = url_at(&seeder, &links[2]);
    pull(&root, &peer, folder.path());
    links.iter().flat_map(|link| link.faults().end_capture()).collect()
}

fn pull(root: &str, peer: &str, folder: &Path) {
    let mut command = Command::new(BINARY);
    set_environment(&mut command).args(["swarm", "pull", root, "--peer", peer, "--token", TOKEN]);
    let output = command.arg("--output").arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The kinds of secrets that `capture` contains.
fn found(capture: &[u8]) -> Vec<&'static str> {
    let weights = std::fs::read(small_model()).unwrap();
    let middle = weights.len() / 2;
    let secrets = [
        ("token", TOKEN.as_bytes()),
        ("prompt", PROMPTS[0].as_bytes()),
        ("weights", &weights[middle..middle + 32]),
    ];
    let contains = |secret: &[u8]| capture.windows(secret.len()).any(|window| window == secret);
    secrets.iter().filter(|(_, secret)| contains(secret)).map(|(kind, _)| *kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn observer_of_encrypted_machines_sees_no_secret() {
    let _permit = one_core();
    let encrypted = capture(true).await;
    assert!(encrypted.len() as u64 > std::fs::metadata(small_model()).unwrap().len());
    assert_eq!(found(&encrypted), [""; 0]);
    // The same observer sees all of them without encryption.
    let plain = capture(false).await;
    assert_eq!(found(&plain), ["token", "prompt", "weights"]);
}

/// A client of another machine needs https, and gets a renewed certificate without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and iproute2"]
async fn endpoint_serves_its_certificate_and_renews_it() {
    let _permit = one_core();
    let host = Owner::new();
    let files = host.data.path().to_owned();
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec![host.machine.address().to_string()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(files.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(files.join("cert.pem"), certificate.pem()).unwrap();
        reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap()
    };
    let first = issue("first");
    let script = format!(
        r#"local tw = require "tightwad"
return tw.serve {{ token = "{TOKEN}", tls = {{ cert = "{0}/cert.pem", key = "{0}/key.pem" }},
  models = {{ echo = function(req) return "hello" end }} }}"#,
        files.display()
    );
    let listen = host.address(8088).to_string();
    let server = Server::start_command(host.machine.command(BINARY), &listen, &script, &[]);
    assert!(
        server.process.log_text().contains(&format!("at https://{listen}/v1")),
        "{}",
        server.process.log_text()
    );
    let ask = async |certificate: reqwest::Certificate| {
        let client = tightwad_net::machine_client().tls_certs_only([certificate]).build().unwrap();
        let request = client.get(format!("https://{listen}/v1/models")).bearer_auth(TOKEN);
        request.send().await.map(|response| response.status().as_u16())
    };
    assert_eq!(ask(first.clone()).await.unwrap(), 200);
    let (status, text) = server.get("/v1/models").await;
    assert!(status == 426 && text.contains("this server is encrypted"), "{status} {text}");
    let second = issue("second");
    // The host looks at the files at most once per second, when a client connects.
    let start = Instant::now();
    while ask(second.clone()).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", server.process.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ask(first).await.is_err());
}
