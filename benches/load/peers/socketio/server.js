// Socket.IO in one process, set up as in its documentation: rooms, a token checked on connecting (HS256, like
// PocketBase's), and an HTTP endpoint through which a back end publishes.
//
//   node server.js PORT SECRET
const crypto = require("node:crypto");
const http = require("node:http");
const { Server } = require("socket.io");

const [port, secret] = process.argv.slice(2);

function isValid(token) {
  const [head, claims, signature] = String(token).split(".");
  const expected = crypto.createHmac("sha256", secret).update(`${head}.${claims}`).digest("base64url");
  return signature === expected && JSON.parse(Buffer.from(claims, "base64url")).exp * 1000 > Date.now();
}

const server = http.createServer((request, response) => {
  const room = request.method === "POST" && request.url.match(/^\/publish\/(\w+)$/)?.[1];
  if (!room) return response.writeHead(404).end();
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    io.to(room).emit("message", JSON.parse(Buffer.concat(pieces)));
    response.writeHead(204).end();
  });
});
server.keepAliveTimeout = 60_000;

const io = new Server(server, { transports: ["websocket"], serveClient: false, perMessageDeflate: false });
io.use((socket, next) => next(isValid(socket.handshake.auth.token) ? undefined : new Error("unauthorized")));
io.on("connection", (socket) => {
  socket.on("join", async (room, answer) => {
    await socket.join(room);
    answer("joined");
  });
});

server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
