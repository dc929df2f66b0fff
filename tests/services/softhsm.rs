//! Tokens of SoftHSM for tests: in a directory of their own, gone with the test's process. A module reads its settings once
//! in a process, so that a test that wants tokens runs in a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The PIN of every token made here.
pub const PIN: &str = "4711-user";

/// Says in a child process where its tokens are.
const PLACE: &str = "CUSTOMER_VAULT_TOKENS";

/// The library; `None` where SoftHSM is not on this machine.
pub fn module() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SOFTHSM2_MODULE") {
        return Some(named.into());
    }
    let known = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
        "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    ];
    known.iter().map(PathBuf::from).find(|path| path.exists())
}

/// A folder of tokens.
#[derive(Debug)]
pub struct Tokens {
    pub dir: PathBuf,
    ours: bool,
}

impl Tokens {
    /// Empty.
    pub fn empty(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("customer-vault-{}-hsm-{name}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(dir.join("tokens")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n",
            dir.join("tokens").display()
        );
        fs::write(dir.join("softhsm2.conf"), conf).unwrap();
        Tokens { dir, ours: true }
    }

    /// This child's.
    pub fn here() -> Option<Self> {
        std::env::var_os(PLACE).map(|dir| Tokens { dir: dir.into(), ours: false })
    }

    pub fn conf(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }

    /// A command that finds these tokens.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.conf()).env(PLACE, &self.dir).stdin(Stdio::null());
        command.env("SHIM_PLAN", self.plan()).env("SHIM_CALLS", self.dir.join("calls"));
        command.env("REAL_MODULE", module().unwrap_or_default());
        command
    }

    fn plan(&self) -> PathBuf {
        self.dir.join("plan")
    }

    /// A module that does what is planned, and otherwise what SoftHSM does: see `pkcs11_shim.c`.
    pub fn shim(&self) -> PathBuf {
        let library = self.dir.join("shim.so");
        if !library.exists() {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/pkcs11_shim.c");
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
            assert!(compiler.status().expect("a C compiler").success());
        }
        library
    }

    /// What the module in front does from now on.
    pub fn plans(&self, plan: &str) {
        fs::write(self.plan(), plan).unwrap();
    }

    /// How often a function of the module in front was called so far.
    pub fn calls(&self, function: &str) -> usize {
        let calls = fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        calls.lines().filter(|line| *line == function).count()
    }

    /// Makes a token, and says in which folder it is.
    pub fn add(&self, label: &str) -> PathBuf {
        let before = self.folders();
        let made = self
            .command("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--so-pin", "0815-officer", "--pin", PIN])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.folders().into_iter().find(|folder| !before.contains(folder)).unwrap()
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        fs::read_dir(self.dir.join("tokens")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        if self.ours {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

/// Runs `body` in a process of its own, which has tokens with these labels. `test` is the name of the test that calls this.
pub fn alone(test: &str, labels: &[&str], body: impl FnOnce(&Tokens)) {
    if let Some(tokens) = Tokens::here() {
        return body(&tokens);
    }
    if module().is_none() {
        println!(
            "{test} skipped: SoftHSM is not on this machine (Debian: softhsm2), nor named in SOFTHSM2_MODULE"
        );
        return;
    }
    let tokens = Tokens::empty(test);
    for label in labels {
        tokens.add(label);
    }
    let child = tokens
        .command(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    print!("{said}");
    assert!(child.status.success(), "{}: {said}\n{}", child.status, String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "the child ran another test: {said}");
}

/// Copies a token's folder.
pub fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
