//! A small shop's service, on axum: accounts, orders, support, shipping, marketing, and being forgotten.
//!
//! ```text
//! cargo run --release --example shop_axum                       # a demonstration, on redb in a temporary folder
//!
//! export SHOP_VAULT_KEY=$(openssl rand -hex 32)                 # keep it: without it the data is lost
//! export SHOP_OPERATOR_SECRET=$(openssl rand -hex 32)
//! cargo run --release --example shop_axum -- --redb shop --create
//! cargo run --release --example shop_axum --features postgres -- --postgres postgres://… --create
//! ```
//!
//! `--create` makes the vault, the first time. Then: `--keys FILE` (where the keeper's file is), `--listen ADDRESS` (for the
//! world, 127.0.0.1:8080), `--operator ADDRESS` (of this machine, 127.0.0.1:8081). The guide has a session with curl:
//! `customer_vault::guide::shop_service`.

#![allow(clippy::print_stdout, unreachable_pub, reason = "a program, and modules that are read alone")]

#[path = "shop_axum/service.rs"]
mod service;
#[path = "shop_axum/session.rs"]
mod session;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use customer_vault::error::KeeperError;
use customer_vault::keeper::{FileKeeper, FileKeeperOptions, FileSecret};
use customer_vault::store::{RedbStore, Store};
use customer_vault::{Options, Vault};
use rand::TryRng as _;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use service::Shop;
use service::answer::Trouble;
use service::rows::redb::RedbRows;
use service::rows::{Rows, records};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// What the command line says.
struct Arguments {
    place: Place,
    keys: Option<PathBuf>,
    create: bool,
    world: SocketAddr,
    operator: SocketAddr,
}

/// Where rows and vault lie.
enum Place {
    Temporary,
    Redb(PathBuf),
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "it says then what is missing"))]
    Postgres(Zeroizing<String>),
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Fallible<Self> {
        let mut all = Arguments {
            place: Place::Temporary,
            keys: None,
            create: false,
            world: ([127, 0, 0, 1], 8080).into(),
            operator: ([127, 0, 0, 1], 8081).into(),
        };
        while let Some(word) = words.next() {
            let mut next = || words.next().ok_or("an option without its value");
            match &*word {
                "--redb" => all.place = Place::Redb(next()?.into()),
                "--postgres" => all.place = Place::Postgres(next()?.into()),
                "--keys" => all.keys = Some(next()?.into()),
                "--create" => all.create = true,
                "--listen" => all.world = next()?.parse()?,
                "--operator" => all.operator = next()?.parse()?,
                _ => {
                    return Err("known are --redb, --postgres, --keys, --create, --listen, --operator".into());
                }
            }
        }
        if let (Place::Temporary, Ok(url)) = (&all.place, std::env::var("DATABASE_URL")) {
            all.place = Place::Postgres(url.into());
        }
        if !all.operator.ip().is_loopback() {
            return Err("the operator's address must be one of this machine".into());
        }
        Ok(all)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Fallible<()> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    match &arguments.place {
        Place::Temporary => demonstrate().await,
        Place::Redb(dir) => {
            std::fs::create_dir_all(dir)?;
            let keys = arguments.keys.clone().unwrap_or_else(|| dir.join("shop.keys"));
            let keeper = keeper(&keys, arguments.create, &FileKeeperOptions::new())?;
            let store = if arguments.create { RedbStore::open_or_create } else { RedbStore::open };
            let vault = open(store(dir.join("vault.redb"))?, keeper, arguments.create).await?;
            let rows = redb_rows(dir, &vault).await?;
            serve(&arguments, vault, rows).await
        }
        #[cfg(feature = "postgres")]
        Place::Postgres(url) => {
            use customer_vault::store::{PostgresOptions, PostgresStore};
            let options = PostgresOptions::new(url)?.table("shop_vault");
            let keys = arguments.keys.clone().unwrap_or_else(|| "shop.keys".into());
            // Shared: several of these processes may run on this host.
            let keeper = keeper(&keys, arguments.create, &FileKeeperOptions::new().shared())?;
            let store = PostgresStore::connect(options.clone()).await?;
            let vault = open(store, keeper, arguments.create).await?;
            let rows =
                service::rows::postgres::PostgresRows::connect(&options).await.map_err(Trouble::code)?;
            let watching = tokio::spawn(service::operate::watch(vault.clone()));
            let served = serve(&arguments, vault, rows).await;
            watching.abort();
            served
        }
        #[cfg(not(feature = "postgres"))]
        Place::Postgres(_) => Err("for --postgres, build with --features postgres".into()),
    }
}

/// 32 bytes, as base64 or hexadecimal digits. From a secret manager it comes into the environment of this process alone.
fn secret() -> Fallible<FileSecret> {
    std::env::var_os("SHOP_VAULT_KEY").ok_or("SHOP_VAULT_KEY is missing")?;
    Ok(FileSecret::from_env("SHOP_VAULT_KEY")?)
}

/// Opens the keeper. A creation that was interrupted has left one: it goes on with that.
fn keeper(keys: &Path, create: bool, options: &FileKeeperOptions) -> Fallible<FileKeeper> {
    if create {
        match options.create(keys, secret()?) {
            Err(customer_vault::Error::Keeper(KeeperError::Exists)) => {}
            made => return Ok(made?),
        }
    }
    Ok(options.open(keys, secret()?)?)
}

/// Opens the vault. It is made only where that is asked for: a vault that is made anew because a path was mistyped would
/// look like one in which everybody was forgotten.
async fn open(store: impl Store, keeper: FileKeeper, create: bool) -> Fallible<Vault> {
    let options = records(Options::new());
    Ok(if create {
        options.create(store, keeper.clone(), keeper).await?
    } else {
        options.open(store, keeper.clone(), keeper).await?
    })
}

async fn redb_rows(dir: &Path, vault: &Vault) -> Fallible<RedbRows> {
    let me = customer_vault::Actor::service("shop")?;
    let rows = RedbRows::open(&dir.join("shop.redb")).map_err(Trouble::code)?;
    let finished = rows.finish(vault, &me, Shop::<RedbRows>::keep_until()).await.map_err(Trouble::code)?;
    tracing::info!(finished, "what was begun when the process ended");
    Ok(rows)
}

async fn serve<R: Rows>(arguments: &Arguments, vault: Vault, rows: R) -> Fallible<()> {
    let operator = std::env::var("SHOP_OPERATOR_SECRET").map_err(|_| "SHOP_OPERATOR_SECRET is missing")?;
    if operator.len() < 32 {
        return Err("SHOP_OPERATOR_SECRET is too short: take 32 random bytes".into());
    }
    let shop = Shop::new(vault, rows, &operator).map_err(Trouble::code)?;
    let world = TcpListener::bind(arguments.world).await?;
    let private = TcpListener::bind(arguments.operator).await?;
    tracing::info!(world = %world.local_addr()?, operator = %private.local_addr()?, "serving");
    service::serve(shop, world, private, asked_to_stop()).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Ctrl-C, or what a service manager sends.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    drop(tokio::signal::ctrl_c().await);
}

/// Serves on free ports, and is its own customer.
async fn demonstrate() -> Fallible<()> {
    let dir = std::env::temp_dir().join(format!("customer-vault-shop-axum-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let told = story(&dir).await;
    std::fs::remove_dir_all(&dir)?;
    told
}

async fn story(dir: &Path) -> Fallible<()> {
    let mut key = Zeroizing::new([0; 32]);
    rand::rngs::SysRng.try_fill_bytes(key.as_mut_slice())?;
    let store = RedbStore::create(dir.join("vault.redb"))?;
    let keeper = FileKeeper::create(dir.join("shop.keys"), FileSecret::key(key))?;
    let vault = open(store, keeper, true).await?;
    let rows = redb_rows(dir, &vault).await?;
    let operator = service::random::<32>().map_err(Trouble::code)?;
    let shop = Shop::new(vault, rows, &operator).map_err(Trouble::code)?;
    let free = || TcpListener::bind(("127.0.0.1", 0));
    let (world, private) = (free().await?, free().await?);
    let client = session::Client::new(&world.local_addr()?.to_string(), &private.local_addr()?.to_string());
    let (done, stop) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(service::serve(shop, world, private, async { drop(stop.await) }));
    let told =
        tokio::task::spawn_blocking(move || session::run(&client, &operator).map_err(|why| why.to_string()));
    let told = told.await?;
    drop(done);
    serving.await??;
    told?;
    println!(
        "\nThat was all, on redb in a temporary folder. With --redb or --postgres it stays: see the first lines."
    );
    Ok(())
}
