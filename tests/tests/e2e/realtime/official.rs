//! Every case of the official test suites of Engine.IO 4 and Socket.IO 5, and the test that covers it here.
//! <https://github.com/socketio/socket.io/tree/main/docs>: `engine.io-protocol/v4-test-suite`, `socket.io-protocol/v5-test-suite`.
//!
//! Where a case expects an echo, `message` with an acknowledgement is the echo, and `fileUpload` that of bytes.
//!
//! | Engine.IO, in both suites | test |
//! |---|---|
//! | polling and WebSocket open a session | [`handshake`](super::handshake): the open packet |
//! | polling refuses a wrong `EIO`, `transport` or method | [`handshake`](super::handshake): a wrong handshake |
//! | WebSocket refuses a wrong `EIO` or `transport` | [`engine`]: a WebSocket needs both |
//! | polling pings and expects pongs | [`engine`]: a waiting GET gets pings |
//! | polling ends when no pong comes | [`handshake`](super::handshake): an abandoned session |
//! | WebSocket pings, and ends when no pong comes | [`handshake`](super::handshake): a socket is pinged |
//! | polling ends when the client closes it | [`engine`]: a waiting GET ends |
//! | WebSocket ends when the client closes it | [`malformed_polling`](super::malformed_polling): a session that says close |
//! | the upgrade | [`engine`]: a probe ends the waiting GET |
//! | after the upgrade, requests and WebSockets with its `sid` are refused | [`malformed_polling`](super::malformed_polling): after the upgrade |
//!
//! | Engine.IO, in its own suite | test |
//! |---|---|
//! | polling: one text packet, several, text and bytes | [`engine`]: payloads |
//! | polling: a malformed packet ends the session | [`malformed_polling`](super::malformed_polling): each malformed payload |
//! | polling: two GETs at once end the session | [`malformed_polling`](super::malformed_polling): two GETs |
//! | polling: a GET that its client cancels ends the session | differs: [`engine`]: a cancelled GET. What breaks a GET may be a network or a proxy, and its repeat loses nothing |
//! | WebSocket: a text packet, bytes | [`engine`]: packets over WebSocket. Bytes that no event announces are [`malformed`](super::malformed) |
//! | WebSocket: a malformed packet ends the session | [`malformed`](super::malformed) |
//!
//! | Socket.IO | test |
//! |---|---|
//! | CONNECT without data | cannot apply: a token is required. [`connect`](super::connect): a bad token, the Authorization header |
//! | CONNECT with data | [`socket`]: CONNECT is answered |
//! | the server's event with the data of CONNECT | cannot apply: there is no such event |
//! | CONNECT to another namespace, with and without data, and leaving it | cannot apply: there is one namespace. [`socket`]: another namespace |
//! | CONNECT to an unknown namespace | [`socket`]: another namespace |
//! | a malformed packet instead of CONNECT ends the session | [`malformed`](super::malformed): before CONNECT |
//! | no CONNECT ends the session | [`handshake`](super::handshake): a session that does not connect |
//! | DISCONNECT leaves the engine open | [`socket`]: after DISCONNECT |
//! | events with and without bytes, with and without an acknowledgement | [`socket`]: events. No acknowledgement of the server holds bytes |
//! | an unknown type, data or acknowledgement id that is malformed | [`malformed`](super::malformed) |

/// Runs each test twice: on the embedded program, and on a gateway of the cluster.
macro_rules! everywhere {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::realtime::Scene::new().await.unwrap()).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::realtime::official::in_cluster().await.unwrap()).await;
            })+
        }
    };
}

mod engine;
mod socket;

use anyhow::Context;
use serde_json::{Value, json};

use super::Scene;
use crate::world;

/// The content of an upload.
const DATA: [u8; 4] = [1, 2, 3, 4];

async fn in_cluster() -> anyhow::Result<Scene> {
    let api = world::gateways(world::cluster().await).pop().context("a gateway")?;
    let account = api.signup().await?;
    let room = api.room(&account).await?;
    Ok(Scene { url: api.url.clone(), api, account, room })
}

impl Scene {
    /// Returns the data of a `fileUpload` whose first attachment is the file.
    fn upload(&self) -> Value {
        json!(["fileUpload", {"roomId": self.room, "name": "four.bin", "data": {"_placeholder": true, "num": 0}}])
    }

    /// Checks that a file has the content [`DATA`].
    async fn has_data(&self, file: &Value) {
        let answer = self.api.get(file["url"].as_str().unwrap_or_default(), &self.account).await.unwrap();
        assert_eq!((answer.status, answer.bytes), (200, DATA.to_vec()), "{file}");
    }
}
