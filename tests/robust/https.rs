//! HTTPS, proxies, and settings that change while a host runs.

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

use crate::support::{
    BINARY, Node, Process, Script, Server, one_core, set_environment, small_model, smollm2, tightwad,
};

/// A TLS proxy in front of a plain server, with a self-signed certificate.
struct TlsProxy {
    address: SocketAddr,
    folder: TempDir,
}

impl TlsProxy {
    async fn start(server: &str) -> Self {
        let certified =
            generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("own.pem"), certified.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
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

/// Serves the small model as `plain`.
fn plain_script() -> String {
    format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ plain = tw.model {{ path = \"{}\", context = 1024, threads = 1 }} }} }}",
        small_model().display()
    )
}

/// The command `tightwad run`.
fn run_command(script: &Script, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    set_environment(&mut command).arg("run").arg(script.path()).args(arguments);
    command
}

/// Asks `model` of the server at `address`. Returns the response.
async fn ask(address: &str, model: &str) -> Value {
    let body = json!({
        "model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 12, "temperature": 0,
    });
    let client = tightwad_net::machine_client().build().unwrap();
    let url = format!("http://{address}/v1/chat/completions");
    client.post(url).json(&body).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_server_is_reached_over_https() {
    let _permit = one_core();
    let upstream = Server::start(&plain_script());
    let tls = TlsProxy::start(&upstream.address).await;
    let script = Script::new(&format!(
        "local tw = require \"tightwad\"\nreturn tw.serve {{ models = {{ far = tw.openai {{ url = \"{}\", model = \"plain\" }} }} }}",
        tls.url()
    ));
    let refused = run_command(&script, &["--check"]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("certificate"), "{error}");
    let mut command = run_command(&script, &["--listen", "127.0.0.1:0"]);
    // The certificate adds to the certificates of the system.
    let host = Process::start(command.env("SSL_CERT_FILE", tls.certificate()));
    let (answer, expected) = (ask(&host.address, "far").await, ask(&upstream.address, "plain").await);
    assert_eq!(answer["choices"][0]["message"], expected["choices"][0]["message"], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_downloads_from_an_https_web_seed() {
    let _permit = one_core();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::copy(smollm2(), &file).unwrap();
    let manifest =
        tightwad(&["swarm", "manifest", "--json", "--piece-size", "2M", &file.display().to_string()]);
    let root =
        serde_json::from_slice::<Value>(&manifest.stdout).unwrap()["root"].as_str().unwrap().to_owned();
    let start_seeder = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        set_environment(&mut command)
            .args(["swarm", "seed", "--no-announce", "--listen", "127.0.0.1:0"])
            .arg(&file)
            .args(arguments);
        Process::start(&mut command)
    };
    // A slow peer has the manifest. A web server has the file.
    let (slow, web) = (start_seeder(&["--max-upload-rate", "1M"]), start_seeder(&[]));
    let tls = TlsProxy::start(&web.address).await;
    let web_seed = format!("{}/v1/swarm/{root}/data", tls.url());
    let mut pull = Command::new(BINARY);
    set_environment(&mut pull).args([
        "swarm",
        "pull",
        &root,
        "--json",
        "--peer",
        &format!("http://{}", slow.address),
    ]);
    let target_folder = tempfile::tempdir().unwrap();
    let target = target_folder.path().join("pulled.gguf");
    pull.args(["--web-seed", &web_seed, "--output"]).arg(&target);
    let output =
        tokio::task::spawn_blocking(move || pull.env("SSL_CERT_FILE", tls.certificate()).output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&target).unwrap() == std::fs::read(&file).unwrap());
    let result: Value =
        serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap();
    let sources = result["from"].as_array().unwrap();
    let https_source = sources.iter().find(|source| source["peer"].as_str().unwrap().starts_with("https://"));
    assert!(https_source.is_some(), "{result}");
    assert!(https_source.unwrap()["bytes"].as_u64().unwrap() > 30 << 20, "{result}");
}

/// The environment variables that name a proxy. The tests set them to a proxy that does not answer.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

#[tokio::test(flavor = "multi_thread")]
async fn host_ignores_environment_proxies_for_other_machines() {
    let _permit = one_core();
    let path = small_model();
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
    let mut command = run_command(&script, &["--listen", "127.0.0.1:0"]);
    let host = Process::start(command.envs(PROXY_VARIABLES.map(|name| (name, "http://127.0.0.1:9"))));
    for model in ["near", "text", "pool"] {
        let answer = ask(&host.address, model).await;
        assert!(answer["choices"][0]["message"]["content"].is_string(), "{model}: {answer}");
    }
    let url = format!("http://{}", host.address);
    for arguments in
        [vec!["status", "--url", &url], vec!["chat", "--url", &url, "--model", "near", "--prompt", "Hi"]]
    {
        let mut command = Command::new(BINARY);
        set_environment(&mut command)
            .args(&arguments)
            .envs(PROXY_VARIABLES.map(|name| (name, "http://127.0.0.1:9")));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn internet_server_is_reached_through_the_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let script =
        Script::new("require(\"tightwad\").openai { url = \"https://api.example.com\", model = \"m\" }");
    let mut command = run_command(&script, &["--check"]);
    command.env("HTTPS_PROXY", address).env_remove("NO_PROXY").env_remove("no_proxy");
    let check = tokio::task::spawn_blocking(move || command.output().unwrap());
    let (mut connection, _) =
        tokio::time::timeout(Duration::from_secs(20), proxy.accept()).await.unwrap().unwrap();
    let mut line = [0; 32];
    connection.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"CONNECT api.example.com:443 HTTP");
    drop(connection);
    assert!(!check.await.unwrap().status.success());
}

/// The status of the response to a request with a token.
async fn status(address: &str, token: &str) -> u16 {
    let client = tightwad_net::machine_client().build().unwrap();
    let url = format!("http://{address}/v1/models");
    client.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_applies_a_new_token_but_not_a_new_address() {
    let _permit = one_core();
    let text = |listen: &str, token: &str| {
        format!(
            "return require(\"tightwad\").serve {{ listen = \"{listen}\", {token} models = {{ m = function() return \"x\" end }} }}"
        )
    };
    let script = Script::new(&text("127.0.0.1:0", "token = \"old\","));
    let host = Process::start(&mut run_command(&script, &[]));
    assert_eq!((status(&host.address, "old").await, status(&host.address, "new").await), (200, 401));
    script.write(&text("127.0.0.1:9999", "token = \"new\","));
    host.wait_for_log("`token` or `keys` have changed", 20).await;
    assert_eq!((status(&host.address, "old").await, status(&host.address, "new").await), (401, 200));
    host.wait_for_log("`listen` has changed to 127.0.0.1:9999", 20).await;
    // A script with an empty token does not load.
    script.write(&text("127.0.0.1:9999", "token = \"\","));
    host.wait_for_log("the token is empty", 20).await;
    assert_eq!((status(&host.address, "").await, status(&host.address, "new").await), (401, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_keeps_the_token_of_a_public_address() {
    let _permit = one_core();
    let text = |token: &str| {
        format!(
            "return require(\"tightwad\").serve {{ {token} models = {{ m = function() return \"x\" end }} }}"
        )
    };
    let script = Script::new(&text("listen = \"0.0.0.0:0\", token = \"secret\","));
    let host = Process::start(&mut run_command(&script, &[]));
    let address = format!("127.0.0.1:{}", host.address.rsplit(':').next().unwrap());
    script.write(&text("listen = \"0.0.0.0:0\","));
    host.wait_for_log("The old ones stay valid", 20).await;
    assert_eq!((status(&address, "secret").await, status(&address, "other").await), (200, 401));
}
