//! Generates `src/protocol/messages.rs` from `proto/client.proto`:
//!
//!     cargo run --manifest-path proto/generate/Cargo.toml
//!
//! A package of its own, since the generated file changes seldom, and the compiler of `.proto` files would add a minute
//! to each build of the gateway.

use prost_types::field_descriptor_proto::Type;
use std::path::Path;

const HEAD: &str = "//! Messages of the client protocol. Generated from `proto/client.proto` by `proto/generate`; do not edit.\n\n";

/// Requests are read from JSON too.
const REQUESTS: [&str; 11] = [
    "ConnectRequest",
    "SubscribeRequest",
    "UnsubscribeRequest",
    "PublishRequest",
    "PresenceRequest",
    "PresenceStatsRequest",
    "HistoryRequest",
    "RPCRequest",
    "RefreshRequest",
    "SubRefreshRequest",
    "EmulationRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let set = protox::compile([root.join("proto/client.proto")], [root.join("proto")])?;
    let folder = std::env::temp_dir().join(format!("konvert-messages-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut config = prost_build::Config::new();
    config.out_dir(&folder).bytes(["."]).btree_map(["."]);
    let of_package = |message: &str| format!(".konvert.gateway.v1.{message}");
    for message in REQUESTS.iter().chain(&["StreamPosition", "FilterNode"]) {
        config.type_attribute(of_package(message), "#[derive(serde::Deserialize)]\n#[serde(default)]");
    }
    let texts = set.file.iter().flat_map(|file| &file.message_type).filter(|it| it.name().ends_with("Request") || it.name() == "StreamPosition");
    for message in texts.filter(|it| !matches!(it.name(), "PingRequest" | "SendRequest")) {
        for field in &message.field {
            let reader = match (message.name(), field.r#type()) {
                ("EmulationRequest", Type::Bytes) => "text",
                (_, Type::Bytes) => "raw",
                _ => "or_default",
            };
            let path = of_package(&format!("{}.{}", message.name(), field.name()));
            config.field_attribute(path, format!("#[serde(deserialize_with = \"super::json::{reader}\")]"));
        }
    }
    config.compile_fds(set)?;
    let messages = std::fs::read_to_string(folder.join("konvert.gateway.v1.rs"))?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::write(root.join("src/protocol/messages.rs"), format!("{HEAD}{messages}"))?;
    Ok(())
}
