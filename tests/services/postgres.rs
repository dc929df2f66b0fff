//! A PostgreSQL server for tests: real, on a free port, in a directory of its own, gone with the test's process.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A server.
#[derive(Debug)]
pub struct Server {
    pub dir: PathBuf,
    pub port: u16,
    extra: Vec<String>,
    process: Option<u32>,
}

/// The folder of the server's programs.
pub fn programs() -> PathBuf {
    if let Ok(dir) = std::env::var("POSTGRES_BIN") {
        return dir.into();
    }
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.flatten().map(|dir| dir.path().join("bin")).collect())
        .unwrap_or_default();
    found.retain(|dir| dir.join("postgres").exists());
    found.sort();
    found.pop().expect("PostgreSQL's server programs: install them (Debian: postgresql), or name their folder in POSTGRES_BIN")
}

/// A command that is not run as root: the server refuses to be. It ends in order with the thread that starts it: killed, a
/// server would leave its shared memory behind.
pub fn unprivileged(program: &str) -> Command {
    let path = programs().join(program);
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--").arg(path).stdin(Stdio::null());
    command
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An empty directory that the server may write to. Those of tests that have ended are removed: a server that all tests of
/// a process share is not dropped.
pub fn directory(name: &str) -> PathBuf {
    for old in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let file = old.file_name();
        let process = file.to_str().and_then(|name| name.strip_prefix("customer-vault-")?.split('-').next());
        if process.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            drop(fs::remove_dir_all(old.path()));
        }
    }
    let dir = std::env::temp_dir().join(format!("customer-vault-{}-{name}", std::process::id()));
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(&dir).unwrap();
    // Where this is no root the directory is the server's already.
    drop(Command::new("chown").arg("postgres:postgres").arg(&dir).stderr(Stdio::null()).status());
    dir
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Server {
    /// A new cluster, started. `settings` are lines of its configuration.
    pub fn start(name: &str, settings: &[&str]) -> Server {
        let dir = directory(name);
        let data = dir.join("data");
        run(unprivileged("initdb").arg("-D").arg(&data).args([
            "-U",
            "shop",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]));
        let mut server = Server::at(dir, settings);
        server.resume();
        server
    }

    /// Over a data directory that is there: a copy of another server's.
    pub fn at(dir: PathBuf, settings: &[&str]) -> Server {
        let extra = settings.iter().map(|line| (*line).to_owned()).collect();
        Server { dir, port: free_port(), extra, process: None }
    }

    /// Starts it again, on the same port, and waits until it takes connections.
    pub fn resume(&mut self) {
        let mut command = unprivileged("postgres");
        command.arg("-D").arg(self.dir.join("data"));
        let own = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            format!("unix_socket_directories={}", self.dir.display()),
            "max_connections=60".into(),
            "logging_collector=off".into(),
        ];
        for setting in own.iter().chain(&self.extra) {
            command.arg("-c").arg(setting);
        }
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let (told, pid) = mpsc::channel();
        // The server ends with the thread that has started it: one that ends with this process, not with a test.
        std::thread::spawn(move || {
            let mut child: Child = command.spawn().unwrap();
            told.send(child.id()).unwrap();
            drop(child.wait());
        });
        self.process = Some(pid.recv().unwrap());
        for _ in 0..300 {
            let ready = unprivileged("pg_isready")
                .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
                .stdout(Stdio::null())
                .status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        panic!("the server does not start: {log}");
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&mut self) {
        self.signal("KILL");
    }

    /// Ends it in order: open connections are cut.
    pub fn stop(&mut self) {
        self.signal("INT");
    }

    fn signal(&mut self, name: &str) {
        let Some(pid) = self.process.take() else { return };
        let pid = pid.to_string();
        if name == "KILL" {
            // Its children as well: they hold the port and the shared memory. It is stopped first, or it would start others
            // when they are gone.
            drop(Command::new("kill").args(["-STOP", &pid]).status());
            drop(Command::new("pkill").args(["-KILL", "-P", &pid]).status());
        }
        drop(Command::new("kill").args([&format!("-{name}"), &pid]).status());
        for waited in 0.. {
            if !Path::new(&format!("/proc/{pid}")).exists() {
                return;
            }
            if waited == 300 {
                // It waits for a standby that does not come.
                drop(Command::new("pkill").args(["-KILL", "-P", &pid]).status());
                drop(Command::new("kill").args(["-KILL", &pid]).status());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A standby of this server, which replicates by a slot of its name, started.
    pub fn standby(&self, name: &str, settings: &[&str]) -> Server {
        let dir = directory(&format!("{name}-of-{}", self.port));
        let from = ["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "shop"];
        let slot = ["-C", "-S", name, "-R", "-X", "stream", "-c", "fast"];
        run(unprivileged("pg_basebackup").arg("-D").arg(dir.join("data")).args(from).args(slot));
        let mut server = Server::at(dir, settings);
        server.follow(self, name);
        server.resume();
        server
    }

    /// Lets a standby follow another primary, from its next start or reload on.
    pub fn follow(&mut self, primary: &Server, name: &str) {
        self.extra.retain(|line| !line.starts_with("primary_"));
        let source = format!("host=127.0.0.1 port={} user=shop application_name={name}", primary.port);
        self.extra.push(format!("primary_conninfo={source}"));
        self.extra.push(format!("primary_slot_name={name}"));
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.sql("postgres", "SELECT pg_promote(true)");
    }

    /// Stops all of its processes where they stand; `false` lets them go on.
    pub fn paused(&self, yes: bool) {
        let Some(pid) = self.process else { return };
        let signal = if yes { "-STOP" } else { "-CONT" };
        // Parent first: it would restart what it sees dead.
        drop(Command::new("kill").args([signal, &pid.to_string()]).status());
        drop(Command::new("pkill").args([signal, "-P", &pid.to_string()]).status());
    }

    /// A connection string for a database of the cluster.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://shop@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs SQL by psql, and gives what it prints.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let out = Command::new(programs().join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-c", sql])
            .output()
            .unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.paused(false);
        self.stop();
        drop(fs::remove_dir_all(&self.dir));
    }
}
