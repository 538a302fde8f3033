//! What every broker promises about presence and the relay's cursor.

use crate::{Factory, client, generous, until};
use konvert_gateway::broker::{Broker, Retention};
use konvert_gateway::protocol::ClientInfo;
use std::time::Duration;

async fn present(broker: &dyn Broker, channel: &str) -> Vec<ClientInfo> {
    let mut present = broker.presence(channel).await.unwrap();
    present.sort_by(|a, b| a.client.cmp(&b.client));
    present
}

pub async fn clients_are_added_renewed_and_removed(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    assert!(present(&*broker, "c").await.is_empty());
    let [one, two] = [client("u", "1"), client("u", "2")];
    let both = [("c".to_owned(), one.clone()), ("c".to_owned(), two.clone()), ("d".to_owned(), one.clone())];
    broker.add_presence(&both).await.unwrap();
    broker.add_presence(&both[..1]).await.unwrap();
    broker.add_presence(&[]).await.unwrap();
    assert_eq!(present(&*broker, "c").await, [one.clone(), two.clone()]);

    broker.remove_presence("c", "1").await.unwrap();
    broker.remove_presence("c", "nobody").await.unwrap();
    assert_eq!(present(&*broker, "c").await, [two]);
    assert_eq!(present(&*broker, "d").await, [one]);

    let crowd: Vec<_> = (0..1500).map(|n| ("crowd".to_owned(), client("u", &n.to_string()))).collect();
    broker.add_presence(&crowd).await.unwrap();
    assert_eq!(present(&*broker, "crowd").await.len(), 1500);
}

pub async fn clients_expire(factory: &impl Factory) {
    let broker = factory.broker(Retention { presence_ttl: Duration::from_millis(600), ..generous() }).await;
    let clients = ["stays", "goes"].map(|id| ("c".to_owned(), client("u", id)));
    broker.add_presence(&clients).await.unwrap();
    assert_eq!(broker.presence("c").await.unwrap().len(), 2);
    until("the end of the one that is not renewed", async || {
        broker.add_presence(&clients[..1]).await.unwrap();
        (present(&*broker, "c").await == [client("u", "stays")]).then_some(())
    })
    .await;
    until("the end of the other", async || broker.presence("c").await.unwrap().is_empty().then_some(())).await;
}

pub async fn the_cursor_only_moves_forward(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    assert_eq!(broker.begin(9).await.unwrap(), 9);
    assert_eq!(broker.begin(3).await.unwrap(), 9);
    assert_eq!(broker.begin(30).await.unwrap(), 9);
    assert_eq!(broker.advance(10).await.unwrap(), 10);
    assert_eq!(broker.advance(9).await.unwrap(), 10);
    assert_eq!(broker.advance(10).await.unwrap(), 10);
    // Beyond what a script's floating-point numbers tell apart.
    let large = (1 << 60) + 1;
    assert_eq!(broker.advance(large).await.unwrap(), large);
    assert_eq!(broker.advance(large - 1).await.unwrap(), large);
    assert_eq!(broker.begin(0).await.unwrap(), large);
}
