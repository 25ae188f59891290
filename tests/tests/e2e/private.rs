//! Only the user of the process can access stored files, even if the directory and the umask permit more.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use confab_tests::api::Api;
use confab_tests::form::Form;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::programs;
use confab_tests::wait::eventually;
use serde_json::json;
use tokio::process::{Child, Command};

const READY_LIMIT: Duration = Duration::from_secs(30);

/// Returns every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Asserts that other users cannot access any file; returns the files' names.
fn private_files(directory: &Path) -> Vec<String> {
    let name = |file: PathBuf| {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}: {}", file.display());
        file.file_name().unwrap().to_string_lossy().into_owned()
    };
    files(directory).into_iter().map(name).collect()
}

/// Starts `confab` on this data directory with a umask.
async fn start(umask: &str, data: &Path) -> (Child, Api) {
    let port = free_ports(2).unwrap();
    let log = fs::File::create(data.with_extension("log")).unwrap();
    let child = Command::new("sh")
        .args(["-c", &format!("umask {umask}; exec \"$0\"")])
        .arg(programs().join("confab"))
        .env_clear()
        .env("CONFAB_LISTEN", format!("127.0.0.1:{port}"))
        .env("CONFAB_ADMIN_LISTEN", format!("127.0.0.1:{}", port + 1))
        .env("CONFAB_DATA_DIR", data)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let readyz = format!("http://127.0.0.1:{}/readyz", port + 1);
    let ready = async || reqwest::get(&readyz).await.is_ok_and(|answer| answer.status().is_success()).then_some(());
    eventually("confab is ready", READY_LIMIT, ready).await.unwrap();
    (child, Api::new(format!("http://127.0.0.1:{port}")))
}

/// Signs up, sends and uploads.
async fn use_it(api: &Api) {
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    api.post("/api/messages", &account, json!({"roomId": room, "content": "hello"}))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    api.upload(&account, Form::new().field("roomId", &room).file("a.txt", "text/plain", b"hello"))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_an_open_directory_are_private() {
    for (mode, umask) in [(0o777, "000"), (0o755, "022")] {
        let guard = Guard::new("private").unwrap();
        // The directory exists before the program starts, as created by an image or a unit file.
        let data = guard.directory().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
        let (mut child, api) = start(umask, &data).await;
        use_it(&api).await;
        let names = private_files(&data);
        for name in ["auth.db", "room.db-wal", "message.db-shm", "file.lock", "signing.key"] {
            assert!(names.iter().any(|there| there == name), "{name}: {names:?}");
        }

        // After a crash, the files get the permissions that an earlier version would have given them.
        child.kill().await.unwrap();
        let files = files(&data);
        files.iter().for_each(|file| fs::set_permissions(file, Permissions::from_mode(0o666)).unwrap());
        let (_child, api) = start(umask, &data).await;
        let objects = data.join("objects");
        let kept = |file: &PathBuf| !file.starts_with(&objects) && file.exists();
        for file in files.iter().filter(|file| kept(file)) {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o}: {}", file.display());
        }
        use_it(&api).await;
        let log = fs::read_to_string(data.with_extension("log")).unwrap();
        assert!(log.contains("this file was accessible to other users") && log.contains("auth.db"), "{log}");
    }
}
