use super::*;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const FIRST: u8 = 0x01;
const LAST: u8 = 0x80;

/// A client's frame, masked with zeros.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let header = [kind, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    [&header, payload].concat()
}

async fn pair() -> (TcpStream, Incoming) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let stream = Arc::new(listener.accept().await.unwrap().0.into());
    let through = Through { stream, outbox: Outbox::alone(1 << 16), unread: 0 };
    (client, Incoming { reader: None, through, max_frame_size: 1 << 16 })
}

/// The message that arrives within the time; `None` without a whole message.
async fn next(incoming: &mut Incoming) -> Option<Message> {
    let read = poll_fn(|cx| incoming.poll_next(cx));
    timeout(Duration::from_millis(300), read).await.ok().map(Result::unwrap)
}

#[tokio::test]
async fn an_idle_connection_has_no_reader() {
    let (mut client, mut incoming) = pair().await;
    assert!(next(&mut incoming).await.is_none());
    assert!(incoming.reader.is_none());
    for payload in ["{}", "[1,2,3]"] {
        client.write_all(&frame(TEXT, payload.as_bytes())).await.unwrap();
        assert_eq!(next(&mut incoming).await, Some(Message::text(payload)));
        assert!(next(&mut incoming).await.is_none());
        assert!(incoming.reader.is_none());
    }
}

#[tokio::test]
async fn what_is_half_read_is_kept() {
    let (mut client, mut incoming) = pair().await;
    let two = [frame(TEXT, b"first"), frame(TEXT, b"second")].concat();
    for cut in [1, 5, 8, 12, 16] {
        client.write_all(&two[..cut]).await.unwrap();
        let mut got = Vec::new();
        while let Some(message) = next(&mut incoming).await {
            got.push(message);
        }
        assert_eq!((got.len(), incoming.reader.is_none()), (cut / 11, false), "{cut}");
        client.write_all(&two[cut..]).await.unwrap();
        while let Some(message) = next(&mut incoming).await {
            got.push(message);
        }
        assert_eq!(got, [Message::text("first"), Message::text("second")], "{cut}");
        assert!(incoming.reader.is_none());
    }
}

#[tokio::test]
async fn a_message_in_fragments_with_a_ping_between_is_kept() {
    let (mut client, mut incoming) = pair().await;
    client.write_all(&frame(FIRST, b"a")).await.unwrap();
    assert!(next(&mut incoming).await.is_none());
    client.write_all(&frame(PING, b"p")).await.unwrap();
    assert_eq!(next(&mut incoming).await, Some(Message::Ping(Bytes::from_static(b"p"))));
    assert!(next(&mut incoming).await.is_none());
    assert!(!incoming.through.outbox.is_empty(), "the ping is answered");
    client.write_all(&frame(LAST, b"b")).await.unwrap();
    assert_eq!(next(&mut incoming).await, Some(Message::text("ab")));
    client.write_all(&frame(TEXT, b"c")).await.unwrap();
    assert_eq!(next(&mut incoming).await, Some(Message::text("c")));
}

#[tokio::test]
async fn a_close_with_a_code_that_is_not_allowed_is_a_close() {
    let (mut client, mut incoming) = pair().await;
    client.write_all(&frame(CLOSE, &1005_u16.to_be_bytes())).await.unwrap();
    assert!(matches!(next(&mut incoming).await, Some(Message::Close(Some(_)))));
}

/// The future of [`serve`] exists once per open connection, so its size counts. Sizes are those of the futures that
/// functions return.
#[test]
fn an_idle_connection_holds_no_room_for_messages() {
    fn size<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }
    type Arguments = (Arc<ClientStream>, Bytes, Session, Arc<Outbox>, Arc<Services>, Arc<Shutdown>);
    let serve = |(stream, early, session, outbox, services, shutdown): Arguments| {
        serve(stream, early, session, outbox, services, shutdown, ())
    };
    let (session, future) = (size_of::<Session>(), size(serve));
    println!("a session takes {session} bytes, and the future of its connection {future}");
    assert!(future <= session + 672, "{future} bytes, of which the session takes {session}");
}
