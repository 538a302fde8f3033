// The driver of centrifuge-go: clients that read their orders from stdin and write their events to stdout, as described
// in ../driver.mjs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// One line from the tests.
type order struct {
	Do         string
	Client     string
	Call       int
	URL        string
	Encoding   string
	Token      string
	GetToken   bool
	MinDelay   int // this and the next in milliseconds
	MaxDelay   int
	PingDelay  int
	Timeout    int
	Channel    string
	JoinLeave  bool
	Delta      centrifuge.DeltaType
	TagsFilter bool
	GetState   bool
	Position   centrifuge.StreamPosition
	Method     string
	Data       json.RawMessage
	Limit      int32
	Since      *centrifuge.StreamPosition
	Reverse    bool
}

// One line to the tests.
type object map[string]any

type client struct {
	key    string
	sdk    *centrifuge.Client
	tokens chan string                               // answers to the event "token"
	states map[string]chan centrifuge.StreamPosition // and "state", by channel
}

var output struct {
	sync.Mutex
	*json.Encoder
}

func write(line object) {
	output.Lock()
	defer output.Unlock()
	if err := output.Encode(line); err != nil {
		panic(err)
	}
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func open(o order) *client {
	c := &client{key: o.Client, tokens: make(chan string, 1), states: map[string]chan centrifuge.StreamPosition{}}
	config := centrifuge.Config{
		Token:              o.Token,
		MinReconnectDelay:  milliseconds(o.MinDelay),
		MaxReconnectDelay:  milliseconds(o.MaxDelay),
		ReadTimeout:        milliseconds(o.Timeout),
		HandshakeTimeout:   milliseconds(o.Timeout),
		MaxServerPingDelay: milliseconds(o.PingDelay),
	}
	if o.GetToken {
		config.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) {
			c.emit("token", nil)
			return <-c.tokens, nil
		}
	}
	if o.Encoding == "protobuf" {
		c.sdk = centrifuge.NewProtobufClient(o.URL, config)
	} else {
		c.sdk = centrifuge.NewJsonClient(o.URL, config)
	}
	c.sdk.OnConnecting(func(e centrifuge.ConnectingEvent) {
		c.emit("connecting", object{"code": e.Code, "reason": e.Reason})
	})
	c.sdk.OnConnected(func(e centrifuge.ConnectedEvent) { c.emit("connected", object{"id": e.ClientID}) })
	c.sdk.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		c.emit("disconnected", object{"code": e.Code, "reason": e.Reason})
	})
	c.sdk.OnError(func(e centrifuge.ErrorEvent) { c.emit("error", failure(e.Error)) })
	return c
}

func (c *client) emit(event string, more object) {
	line := object{"client": c.key, "event": event}
	for name, value := range more {
		line[name] = value
	}
	write(line)
}

func failure(err error) object {
	var code uint32
	var answer *centrifuge.Error
	if errors.As(err, &answer) {
		code = answer.Code
	}
	return object{"code": code, "message": err.Error()}
}

// An empty payload is null.
func payload(data []byte) json.RawMessage {
	if len(data) == 0 {
		return nil
	}
	return data
}

func publication(p centrifuge.Publication) object {
	it := object{"data": payload(p.Data), "offset": p.Offset}
	if p.Info != nil {
		it["user"] = p.Info.User
	}
	return it
}

func (c *client) subscribe(o order) error {
	config := centrifuge.SubscriptionConfig{
		JoinLeave:           o.JoinLeave,
		Delta:               o.Delta,
		MinResubscribeDelay: milliseconds(o.MinDelay),
		MaxResubscribeDelay: milliseconds(o.MaxDelay),
	}
	if o.TagsFilter {
		config.TagsFilter = centrifuge.FilterEq("a", "b")
	}
	if o.GetState {
		positions := make(chan centrifuge.StreamPosition, 1)
		c.states[o.Channel] = positions
		config.GetState = func(centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
			c.emit("state", object{"channel": o.Channel})
			return <-positions, nil
		}
	}
	s, err := c.sdk.NewSubscription(o.Channel, config)
	if err != nil {
		return err
	}
	emit := func(event string, more object) {
		more["channel"] = o.Channel
		c.emit(event, more)
	}
	s.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		emit("subscribed", object{"wasRecovering": e.WasRecovering, "recovered": e.Recovered, "data": payload(e.Data)})
	})
	s.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		emit("unsubscribed", object{"code": e.Code, "reason": e.Reason})
	})
	s.OnPublication(func(e centrifuge.PublicationEvent) { emit("publication", publication(e.Publication)) })
	s.OnJoin(func(e centrifuge.JoinEvent) { emit("join", object{"user": e.User}) })
	s.OnLeave(func(e centrifuge.LeaveEvent) { emit("leave", object{"user": e.User}) })
	s.OnError(func(e centrifuge.SubscriptionErrorEvent) { emit("error", failure(e.Error)) })
	return s.Subscribe()
}

// Orders without an answer.
func (c *client) act(o order) error {
	switch o.Do {
	case "open":
		_ = c.sdk.Connect() // an error of the first dial, after which the SDK tries again
		return nil
	case "token":
		c.tokens <- o.Token
		return nil
	case "state":
		c.states[o.Channel] <- o.Position
		return nil
	case "subscribe":
		return c.subscribe(o)
	case "unsubscribe":
		s, _ := c.sdk.GetSubscription(o.Channel)
		return s.Unsubscribe()
	case "close":
		return c.sdk.Disconnect()
	}
	return fmt.Errorf("no such order: %s", o.Do)
}

// Orders with an answer.
func (c *client) answer(o order) (object, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, _ := c.sdk.GetSubscription(o.Channel)
	switch o.Do {
	case "publish":
		_, err := s.Publish(ctx, o.Data)
		return object{}, err
	case "history":
		result, err := s.History(ctx, centrifuge.WithHistoryLimit(o.Limit), centrifuge.WithHistorySince(o.Since),
			centrifuge.WithHistoryReverse(o.Reverse))
		publications := []object{}
		for _, p := range result.Publications {
			publications = append(publications, publication(p))
		}
		return object{"publications": publications, "offset": result.Offset, "epoch": result.Epoch}, err
	case "presence":
		result, err := s.Presence(ctx)
		users := object{}
		for id, info := range result.Clients {
			users[id] = info.User
		}
		return object{"users": users}, err
	case "presenceStats":
		result, err := s.PresenceStats(ctx)
		return object{"clients": result.NumClients, "users": result.NumUsers}, err
	case "rpc":
		result, err := c.sdk.RPC(ctx, o.Method, o.Data)
		return object{"data": payload(result.Data)}, err
	}
	return nil, fmt.Errorf("no such order: %s", o.Do)
}

func (c *client) call(o order) {
	line := object{"client": o.Client, "call": o.Call}
	if result, err := c.answer(o); err != nil {
		line["error"] = failure(err)
	} else {
		line["result"] = result
	}
	write(line)
}

func main() {
	output.Encoder = json.NewEncoder(os.Stdout)
	clients := map[string]*client{}
	write(object{"ready": true})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			panic(err)
		}
		if o.Do == "open" {
			clients[o.Client] = open(o)
		}
		c := clients[o.Client]
		if o.Call > 0 {
			go c.call(o)
		} else if o.Do == "open" {
			go func() { _ = c.act(o) }() // dials
		} else if err := c.act(o); err != nil {
			panic(err)
		}
	}
}
