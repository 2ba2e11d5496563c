//! Encrypted servers, proxies, and settings that change while a host runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::generate_simple_self_signed;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{BINARY, Node, Process, Script, Server, environment, share, small, smollm2, tightwad};

/// TLS in front of a plain server; its certificate vouches for itself.
struct Encrypted {
    address: SocketAddr,
    folder: TempDir,
}

impl Encrypted {
    async fn before(server: &str) -> Self {
        let made = generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("own.pem"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let (acceptor, server) = (TlsAcceptor::from(Arc::new(config)), server.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, folder }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate, for `SSL_CERT_FILE`.
    fn certificate(&self) -> PathBuf {
        self.folder.path().join("own.pem")
    }
}

fn plain_script() -> String {
    format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ plain = tw.model {{ path = \"{}\", context = 1024, threads = 1 }} }} }}",
        small().display()
    )
}

fn run(script: &Script, more: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    environment(&mut command).arg("run").arg(script.path()).args(more);
    command
}

async fn answer(address: &str, model: &str) -> Value {
    let body = json!({
        "model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 12, "temperature": 0,
    });
    let client = tightwad_net::machine_client().build().unwrap();
    let url = format!("http://{address}/v1/chat/completions");
    client.post(url).json(&body).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_server_is_reached_by_https() {
    let _turn = share();
    let far = Server::start(&plain_script());
    let encrypted = Encrypted::before(&far.address).await;
    let script = Script::new(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ far = tw.openai {{ url = \"{}\", model = \"plain\" }} }} }}",
        encrypted.url()
    ));
    let refused = run(&script, &["--check"]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("certificate"), "{error}");
    let mut command = run(&script, &["--listen", "127.0.0.1:0"]);
    // It adds to what the system trusts.
    let near = Process::start(command.env("SSL_CERT_FILE", encrypted.certificate()));
    let (here, there) = (answer(&near.address, "far").await, answer(&far.address, "plain").await);
    assert_eq!(here["choices"][0]["message"], there["choices"][0]["message"], "{here}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pulled_from_an_https_server() {
    let _turn = share();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::copy(smollm2(), &file).unwrap();
    let made = tightwad(&["swarm", "manifest", "--json", "--piece", "2M", &file.display().to_string()]);
    let root = serde_json::from_slice::<Value>(&made.stdout).unwrap()["root"].as_str().unwrap().to_owned();
    let seeder = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        environment(&mut command)
            .args(["swarm", "seed", "--quiet", "--listen", "127.0.0.1:0"])
            .arg(&file)
            .args(more);
        Process::start(&mut command)
    };
    // One machine has the manifest, and hardly a way out; a web server has the file.
    let (slow, web) = (seeder(&["--up", "1M"]), seeder(&[]));
    let encrypted = Encrypted::before(&web.address).await;
    let from = format!("{}/v1/swarm/{root}/data", encrypted.url());
    let mut pull = Command::new(BINARY);
    environment(&mut pull).args([
        "swarm",
        "pull",
        &root,
        "--json",
        "--peer",
        &format!("http://{}", slow.address),
    ]);
    let place = tempfile::tempdir().unwrap();
    let pulled = place.path().join("pulled.gguf");
    pull.args(["--from", &from, "--output"]).arg(&pulled);
    let done = tokio::task::spawn_blocking(move || {
        pull.env("SSL_CERT_FILE", encrypted.certificate()).output().unwrap()
    });
    let done = done.await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(std::fs::read(&pulled).unwrap() == std::fs::read(&file).unwrap());
    let said: Value =
        serde_json::from_str(String::from_utf8_lossy(&done.stdout).lines().last().unwrap()).unwrap();
    let sources = said["from"].as_array().unwrap();
    let encrypted = sources.iter().find(|source| source["peer"].as_str().unwrap().starts_with("https://"));
    assert!(encrypted.is_some(), "{said}");
    assert!(encrypted.unwrap()["bytes"].as_u64().unwrap() > 30 << 20, "{said}");
}

/// Variables that send everything to a proxy that does not answer.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_come_between_no_machines() {
    let _turn = share();
    let path = small();
    let node = Node::start(&[("m", &path)], &["--context", "512", "--slots", "2"]);
    let script = Script::new(&format!(
        r#"local tw = require "tightwad"
local near = tw.node {{ url = "{0}" }}
return tw.serve {{ models = {{
  near = near,
  text = tw.openai {{ url = "{0}", model = "m" }},
  pool = tw.pooling {{ model = "{1}", name = "pool", context = 512, slots = 1 }},
}} }}"#,
        node.url(),
        path.display()
    ));
    let mut command = run(&script, &["--listen", "127.0.0.1:0"]);
    let host = Process::start(command.envs(PROXIES.map(|name| (name, "http://127.0.0.1:9"))));
    for model in ["near", "text", "pool"] {
        let answered = answer(&host.address, model).await;
        assert!(answered["choices"][0]["message"]["content"].is_string(), "{model}: {answered}");
    }
    let url = format!("http://{}", host.address);
    for arguments in
        [vec!["status", "--url", &url], vec!["chat", "--url", &url, "--model", "near", "--once", "Hi"]]
    {
        let mut command = Command::new(BINARY);
        environment(&mut command).args(&arguments).envs(PROXIES.map(|name| (name, "http://127.0.0.1:9")));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_the_internet_is_reached_through_the_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let script =
        Script::new("require(\"tightwad\").openai { url = \"https://api.example.com\", model = \"m\" }");
    let mut command = run(&script, &["--check"]);
    command.env("HTTPS_PROXY", address).env_remove("NO_PROXY").env_remove("no_proxy");
    let checking = tokio::task::spawn_blocking(move || command.output().unwrap());
    let (mut asked, _) =
        tokio::time::timeout(Duration::from_secs(20), proxy.accept()).await.unwrap().unwrap();
    let mut line = [0; 32];
    asked.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"CONNECT api.example.com:443 HTTP");
    drop(asked);
    assert!(!checking.await.unwrap().status.success());
}

/// The status of a request with a token.
async fn status(address: &str, token: &str) -> u16 {
    let client = tightwad_net::machine_client().build().unwrap();
    let url = format!("http://{address}/v1/models");
    client.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_holds_after_a_reload_and_a_new_address_needs_a_restart() {
    let _turn = share();
    let text = |listen: &str, token: &str| {
        format!(
            "return require(\"tightwad\").serve {{ listen = \"{listen}\", {token} models = {{ m = function() return \"x\" end }} }}"
        )
    };
    let script = Script::new(&text("127.0.0.1:0", "token = \"old\","));
    let host = Process::start(&mut run(&script, &[]));
    assert_eq!((status(&host.address, "old").await, status(&host.address, "new").await), (200, 401));
    script.write(&text("127.0.0.1:9999", "token = \"new\","));
    host.until_logged("`token` has changed", 20).await;
    assert_eq!((status(&host.address, "old").await, status(&host.address, "new").await), (401, 200));
    host.until_logged("`listen` is now 127.0.0.1:9999; restart", 20).await;
    // A token that becomes empty is a script that does not load.
    script.write(&text("127.0.0.1:9999", "token = \"\","));
    host.until_logged("the token is empty", 20).await;
    assert_eq!((status(&host.address, "").await, status(&host.address, "new").await), (401, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_other_machines_need_is_not_dropped_by_a_reload() {
    let _turn = share();
    let text = |token: &str| {
        format!(
            "return require(\"tightwad\").serve {{ {token} models = {{ m = function() return \"x\" end }} }}"
        )
    };
    let script = Script::new(&text("listen = \"0.0.0.0:0\", token = \"secret\","));
    let host = Process::start(&mut run(&script, &[]));
    let address = format!("127.0.0.1:{}", host.address.rsplit(':').next().unwrap());
    script.write(&text("listen = \"0.0.0.0:0\","));
    host.until_logged("the old token still holds", 20).await;
    assert_eq!((status(&address, "secret").await, status(&address, "other").await), (200, 401));
}
