//! A daemon's surroundings together: started, asked, ended.

use serde_json::json;

use super::admin::{AdminError, ask, socket_path};
use super::*;

crate::options! {
    /// Of a test.
    struct Own {
        /// Colour of the flag.
        colour: String = "red".into(), live;
    }
}

async fn asked(
    path: &std::path::Path,
    verb: &'static str,
    args: serde_json::Value,
) -> Result<serde_json::Value, AdminError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || ask(&path, verb, args, Duration::from_secs(20))).await.unwrap()
}

#[tokio::test]
async fn a_daemon_starts_answers_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut layers = Layers::default();
    layers.flag(&format!("run_dir={}", folder.path().display())).unwrap();
    let own = Arc::new(Settings::<Own>::new(layers.clone()).unwrap());
    let name: Name = "osd.3".parse().unwrap();
    let daemon = Daemon::start(name.clone(), layers.clone(), own.clone()).await.unwrap();
    daemon.admin.add("dump state", "what it holds", |_| async { Ok(json!({ "pgs": 3 })) });
    daemon.ready("3 pgs");
    let path = socket_path(folder.path(), &name);

    assert_eq!(asked(&path, "version", json!({})).await.unwrap()["name"], "osd.3");
    assert_eq!(asked(&path, "dump state", json!({})).await.unwrap(), json!({ "pgs": 3 }));
    let config = asked(&path, "config show", json!({})).await.unwrap();
    assert_eq!(config["run_dir"]["source"], "flag");
    assert_eq!(config["colour"], json!({ "value": "red", "source": "default", "live": true }));
    let mut watch = own.watch();
    asked(&path, "config set", json!({ "name": "colour", "value": "green" })).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(own.now().colour, "green");
    asked(&path, "config unset", json!({ "name": "colour" })).await.unwrap();
    assert_eq!(own.now().colour, "red");
    for (verb, args, says) in [
        ("config set", json!({ "name": "run_dir", "value": "/x" }), "restart"),
        ("config set", json!({ "name": "nothing", "value": "x" }), "no setting"),
        ("config set", json!({}), "missing"),
        ("log level", json!({ "level": "loud" }), "log level"),
        ("fly", json!({}), "no verb \"fly\"; there are help, config set"),
    ] {
        let refused = asked(&path, verb, args).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    assert!(asked(&path, "help", json!({})).await.unwrap()["dump state"].is_string());
    let perf = asked(&path, "perf", json!({})).await.unwrap();
    assert!(perf["nacre_osd_process_resident_bytes"].as_f64().unwrap() > 0.0);
    assert!(daemon.metrics_address.unwrap().ip().is_loopback());

    // A second one of the same name is told who runs; another name is welcome.
    let second = Daemon::start(name.clone(), layers.clone(), own.clone()).await.unwrap_err().to_string();
    assert!(second.contains("running already"), "{second}");
    let other = Daemon::start("osd.4".parse().unwrap(), layers, own).await.unwrap();
    assert!(other.finish().await);

    let work = daemon.shutdown.work().unwrap();
    asked(&path, "stop", json!({})).await.unwrap();
    assert_eq!(daemon.shutdown.begun().await, "asked through the admin socket");
    drop(work);
    assert!(daemon.finish().await);
    assert!(matches!(asked(&path, "version", json!({})).await, Err(AdminError::Connect { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "sockets and pid file are gone");
}

#[tokio::test]
async fn the_admin_socket_survives_nonsense() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.admin");
    tokio::spawn(admin::serve(admin::bind(&path).unwrap(), Arc::default()));
    let talk = |bytes: Vec<u8>| {
        let path = path.clone();
        async move {
            let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
            let (mut from, mut to) = stream.split();
            let mut answer = String::new();
            let write = async {
                let _ = to.write_all(&bytes).await;
                let _ = to.shutdown().await;
            };
            let (read, ()) = tokio::join!(from.read_to_string(&mut answer), write);
            // A request that was cut off may end in a reset; what counts is what was answered before.
            let _ = read;
            answer
        }
    };
    assert!(talk(b"nonsense\n".to_vec()).await.contains("cannot be read"));
    assert_eq!(talk(b"{\"verb\":\"help\"}\n".to_vec()).await, "{\"ok\":{}}\n");
    assert!(talk(vec![0xff; 10]).await.contains("error"));
    assert_eq!(talk(Vec::new()).await, "");
    talk(vec![b'a'; admin::MOST_REQUEST + 100]).await;
    assert_eq!(talk(b"{\"verb\":\"help\"}\n".to_vec()).await, "{\"ok\":{}}\n", "still there");
}
