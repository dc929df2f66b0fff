//! An OpenBao server for tests: real, with TLS and raft storage, on free ports, in a directory of its own, gone with the
//! test's process. And a proxy in front of it that can be told to misbehave.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use customer_vault::keeper::BaoOptions;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// The server's program: `BAO_BIN`, or `bao` on the path. Where there is none the tests say so and do nothing.
pub fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BAO_BIN") {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "BAO_BIN names no file");
        return Some(named);
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|dir| dir.join("bao")).find(|file| file.is_file());
    if found.is_none() {
        // Not by a macro, whose output the test harness keeps to itself.
        let why = b"skipped: there is no OpenBao server; name its program in BAO_BIN (ci/services.sh installs it)\n";
        std::io::stderr().write_all(why).unwrap();
    }
    found
}

/// Ports that are free now, each another.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A server. Its second listener speaks plain HTTP, for the tests' own requests and for proxies.
#[derive(Debug)]
pub struct Bao {
    dir: PathBuf,
    pub port: u16,
    pub plain: u16,
    /// Where clients have to show a certificate.
    pub mutual: u16,
    pub authority: String,
    pub chain: String,
    pub key: String,
    pub root: String,
    unseal: String,
    process: Option<u32>,
}

impl Bao {
    /// A new server, unsealed, with a transit engine at `transit` and a key-value store at `secret`.
    pub fn start(name: &str) -> Option<Bao> {
        let program = program()?;
        // A port may be taken by somebody else before the server has it.
        (0..5).find_map(|_| Self::try_start(name, &program)).or_else(|| panic!("the server does not start"))
    }

    fn try_start(name: &str, program: &Path) -> Option<Bao> {
        for old in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            let file = old.file_name();
            let process =
                file.to_str().and_then(|name| name.strip_prefix("customer-vault-bao-")?.split('-').next());
            if process.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
            {
                drop(fs::remove_dir_all(old.path()));
            }
        }
        let dir = std::env::temp_dir().join(format!("customer-vault-bao-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(dir.join("data")).unwrap();
        let (authority, chain, key) = certificate();
        for (name, text) in [("authority.pem", &authority), ("chain.pem", &chain), ("key.pem", &key)] {
            fs::write(dir.join(name), text).unwrap();
        }
        let [port, plain, mutual, cluster, cluster_two, cluster_three] = free_ports();
        let shown = dir.display();
        let config = format!(
            r#"storage "raft" {{ path = "{shown}/data" node_id = "one" }}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_cert_file = "{shown}/chain.pem"
  tls_key_file = "{shown}/key.pem"
}}
listener "tcp" {{
  address = "127.0.0.1:{plain}"
  cluster_address = "127.0.0.1:{cluster_two}"
  tls_disable = true
}}
listener "tcp" {{
  address = "127.0.0.1:{mutual}"
  cluster_address = "127.0.0.1:{cluster_three}"
  tls_cert_file = "{shown}/chain.pem"
  tls_key_file = "{shown}/key.pem"
  tls_client_ca_file = "{shown}/authority.pem"
  tls_require_and_verify_client_cert = true
}}
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster}"
disable_mlock = true
"#
        );
        fs::write(dir.join("config.hcl"), config).unwrap();
        let (root, unseal) = (String::new(), String::new());
        let mut bao = Bao { dir, port, plain, mutual, authority, chain, key, root, unseal, process: None };
        if !bao.run(program) {
            return None;
        }
        let (_, said) = bao.api("POST", "sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}));
        said["root_token"].as_str().unwrap().clone_into(&mut bao.root);
        said["keys_base64"][0].as_str().unwrap().clone_into(&mut bao.unseal);
        bao.unseal();
        bao.mount("", "transit", json!({"type": "transit"}));
        bao.mount("", "secret", json!({"type": "kv", "options": {"version": "2"}}));
        Some(bao)
    }

    /// False where it ends instead of answering.
    fn run(&mut self, program: &Path) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        // It ends with the thread that has started it, which ends with this process.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).arg("server").arg("-config");
        command.arg(self.dir.join("config.hcl")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let (told, pid) = mpsc::channel();
        std::thread::spawn(move || {
            let mut child = command.spawn().unwrap();
            told.send(child.id()).unwrap();
            drop(child.wait());
        });
        let pid = pid.recv().unwrap();
        self.process = Some(pid);
        for _ in 0..600 {
            if !Path::new(&format!("/proc/{pid}")).exists() {
                std::io::stderr().write_all(&fs::read(self.dir.join("log")).unwrap_or_default()).unwrap();
                self.process = None;
                return false;
            }
            if self.status().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not start: {}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
    }

    /// What `sys/health` answers with: 200 where it is active.
    fn status(&self) -> Option<u16> {
        ureq::get(format!("http://127.0.0.1:{}/v1/sys/health", self.plain))
            .config()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(2)))
            .build()
            .call()
            .ok()
            .map(|answer| answer.status().as_u16())
    }

    pub fn unseal(&self) {
        self.api("POST", "sys/unseal", "", json!({"key": self.unseal}));
        for _ in 0..600 {
            if self.status() == Some(200) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not become active");
    }

    pub fn seal(&self) {
        self.done("POST", "", "sys/seal", json!({}));
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&mut self) {
        let Some(pid) = self.process.take() else { return };
        drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status());
        while Path::new(&format!("/proc/{pid}")).exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again after a [`kill`](Self::kill), on the same ports, unsealed.
    pub fn resume(&mut self) {
        assert!(self.run(&program().unwrap()), "the server does not start again");
        self.unseal();
    }

    /// A request of the operator's, in a namespace; status and answer.
    pub fn api(&self, method: &str, path: &str, namespace: &str, body: Value) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}/v1/{path}", self.plain))
            .header("X-Vault-Token", &self.root)
            .header("X-Vault-Namespace", namespace);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = if matches!(method, "GET" | "DELETE") {
            agent.run(request.body(()).unwrap()).unwrap()
        } else {
            agent.run(request.body(body.to_string()).unwrap()).unwrap()
        };
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// One that has to succeed.
    pub fn done(&self, method: &str, namespace: &str, path: &str, body: Value) -> Value {
        let (status, said) = self.api(method, path, namespace, body);
        assert!(status < 300, "{method} {path}: {status} {said}");
        said
    }

    /// Mounts an engine, and waits until it can be used: a key-value store is made ready after it is mounted.
    pub fn mount(&self, namespace: &str, path: &str, what: Value) {
        self.done("POST", namespace, &format!("sys/mounts/{path}"), what.clone());
        if what["options"]["version"] == "2" {
            for _ in 0..200 {
                if self.api("GET", &format!("{path}/config"), namespace, Value::Null).0 == 200 {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// A token that may do what `policy` says, with these further settings.
    pub fn token(&self, namespace: &str, policy: &str, settings: Value) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("policy-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.done("POST", namespace, &format!("sys/policies/acl/{name}"), json!({"policy": policy}));
        let mut asked = json!({"policies": [name]});
        asked.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let said = self.done("POST", namespace, "auth/token/create", asked);
        said["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Over TLS, with this token.
    pub fn options(&self, token: &str) -> BaoOptions {
        of(&self.url(), token).certificate_authorities(&self.authority).unwrap()
    }

    /// All that lies on its disk.
    pub fn on_disk(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut folders = vec![self.dir.join("data")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.extend(fs::read(path).unwrap_or_default());
                }
            }
        }
        all
    }

    /// A snapshot of everything that the server has.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut answer = ureq::get(format!("http://127.0.0.1:{}/v1/sys/storage/raft/snapshot", self.plain))
            .header("X-Vault-Token", &self.root)
            .call()
            .unwrap();
        answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
    }

    /// Brings the server back to a snapshot.
    pub fn restore(&self, snapshot: &[u8]) {
        ureq::post(format!("http://127.0.0.1:{}/v1/sys/storage/raft/snapshot-force", self.plain))
            .header("X-Vault-Token", &self.root)
            .send(snapshot)
            .unwrap();
        std::thread::sleep(Duration::from_secs(1));
        if self.status() != Some(200) {
            self.unseal();
        }
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.kill();
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// At an address, with a token, trying again quickly.
pub fn of(address: &str, token: &str) -> BaoOptions {
    let token = token.to_owned();
    let options = BaoOptions::new(address, move || Ok(Zeroizing::new(token.clone()))).unwrap();
    options.wait_for_answer(Duration::from_secs(5)).retries(1)
}

/// An authority, and a certificate of its for this machine with its key, all as PEM.
pub fn certificate() -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let chain = CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
    (authority.pem(), chain.pem(), own.serialize_pem())
}

/// What a proxy does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Hands it on.
    Pass,
    /// Answers itself.
    Say(u16, String),
    /// Waits, then hands it on.
    Wait(Duration),
    /// Hands it on and cuts the connection instead of giving the answer back.
    Lose,
    /// Cuts the connection.
    Cut,
}

type Rule = Box<dyn FnMut(&str) -> Act + Send>;

/// Stands before a server and does what a rule says of each request, which is given as it came, head and body.
pub struct Proxy {
    pub url: String,
    rule: Arc<Mutex<Rule>>,
}

impl Proxy {
    pub fn before(bao: &Bao) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Act::Pass)));
        let (rules, plain) = (Arc::clone(&rule), bao.plain);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let rules = Arc::clone(&rules);
                std::thread::spawn(move || drop(serve(client, plain, &rules)));
            }
        });
        Proxy { url, rule }
    }

    pub fn rule(&self, rule: impl FnMut(&str) -> Act + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }
}

/// One request a connection.
fn serve(mut client: TcpStream, plain: u16, rule: &Mutex<Rule>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    let head = loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let read = client.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
    };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    while request.len() < head + length {
        let read = client.read(&mut part)?;
        request.extend_from_slice(&part[..read]);
    }
    let act = (rule.lock().unwrap())(&String::from_utf8_lossy(&request));
    match act {
        Act::Cut => return Ok(()),
        Act::Say(status, body) => {
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            return client.write_all(answer.as_bytes());
        }
        Act::Wait(time) => std::thread::sleep(time),
        Act::Pass | Act::Lose => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", plain))?;
    // Before the first header: after the answer the server closes.
    let line = request.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
    server.write_all(&request[..line])?;
    server.write_all(b"Connection: close\r\n")?;
    server.write_all(&request[line..])?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if matches!(act, Act::Lose) { Ok(()) } else { client.write_all(&answer) }
}
