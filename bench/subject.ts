/**
 * The server of the benchmarks, of every kind and over every protocol. The same modules are loaded whatever its kind, so
 * that what differs is what they do. It is a program of its own; `Subject` is its argument.
 *
 * `/quick` has a tiny answer, `/slow` one that takes two seconds, `/socket` is a WebSocket that answers nothing, and
 * anything else is answered with its path. On SIGUSR2 it prints what it has used, and at its end how much CPU time.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { writeSync } from "node:fs"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import { createSecureServer, createServer as createHttp2Server } from "node:http2"
import { createServer as createHttpsServer } from "node:https"
import type { AddressInfo } from "node:net"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { WebSocketServer } from "ws"
import { cert, key } from "../test/support/certificate.ts"
import { heldSocket } from "./held-socket.ts"
import { slowMillis, type Subject, type Usage } from "./kinds.ts"
import { load, stops } from "./stops.ts"

const subject = JSON.parse(process.argv[2]!) as Subject
const { kind, protocol } = subject

const address = { port: 0, host: "127.0.0.1", backlog: 4096 }

const prepared = (server: Server): Server => {
  if (subject.keepAliveTimeout !== undefined) server.keepAliveTimeout = subject.keepAliveTimeout
  return server.on("listening", () => {
    litter(subject.garbage ?? 0)
    console.log(`port ${(server.address() as AddressInfo).port}`)
  })
}

/** What was made last: V8 leaves out what nobody could see. */
export let litterer: ReadonlyArray<number> = []

const litter = (bytes: number): void => {
  // An array of 125 numbers is 1,000 bytes, and its head.
  for (let made = 0; made < bytes; made += 1050) litterer = Array.from<number>({ length: 125 }).fill(0)
}

const create = (): Server =>
  prepared(
    {
      http: () => createServer(),
      https: () => createHttpsServer({ key, cert }),
      http2: () => createSecureServer({ key, cert }) as unknown as Server,
      h2c: () => createHttp2Server() as unknown as Server
    }[protocol]()
  )

let slow = 0
const began = (): void => {
  slow++
  if (slow === subject.slow) console.log("began")
}

// --- What it has used ---

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void
let asked = 0

const usage = (): Usage => {
  const { system, user } = process.cpuUsage()
  const { external, heapUsed, rss } = process.memoryUsage()
  return { cpu: (user + system) / 1000, rss, heapUsed, external }
}

process.on("SIGUSR2", () => {
  asked++
  const tell = () => console.log(`usage ${asked} ${JSON.stringify(usage())}`)
  if (subject.collect !== true) return tell()
  // What a first collection finalizes, a second one frees.
  collect()
  setImmediate(() => {
    collect()
    setImmediate(() => {
      collect()
      tell()
    })
  })
})

process.on("exit", () => writeSync(1, `spent ${usage().cpu}\n`))

// --- Effect applications ---

const Api = HttpRouter.serve(
  Layer.mergeAll(
    HttpRouter.add("GET", "/quick", HttpServerResponse.text("quick")),
    HttpRouter.add(
      "GET",
      "/slow",
      Effect.sync(began).pipe(Effect.andThen(Effect.sleep(slowMillis)), Effect.as(HttpServerResponse.text("slow")))
    ),
    HttpRouter.add("GET", "/socket", heldSocket),
    HttpRouter.add(
      "GET",
      "/*",
      Effect.map(HttpServerRequest.HttpServerRequest, ({ url }) => HttpServerResponse.text(url))
    )
  ),
  { disableLogger: true, disableListenLog: true }
)

// --- The others ---

const answer = (request: IncomingMessage, response: ServerResponse): void => {
  response.setHeader("content-type", "text/plain")
  switch (request.url) {
    case "/quick":
      response.end("quick")
      break
    case "/slow":
      began()
      setTimeout(() => response.end("slow"), slowMillis)
      break
    default:
      response.setHeader("content-length", Buffer.byteLength(request.url!))
      response.end(request.url)
  }
}

const accept = (server: Server): WebSocketServer => {
  const sockets = new WebSocketServer({ server, path: "/socket" })
  return sockets.on("connection", (socket) => socket.on("message", () => {}))
}

interface Reply {
  send(body: string): void
}

const fastify = (): void => {
  const own = {
    http: {},
    https: { https: { key, cert } },
    http2: { http2: true, https: { key, cert } },
    h2c: { http2: true }
  }
  const app = load<
    (options: object) => {
      server: Server
      get(path: string, handler: (request: { url: string }, reply: Reply) => void): void
      listen(options: object): Promise<unknown>
      close(): Promise<void>
    }
  >("fastify")({
    ...own[protocol],
    ...(subject.keepAliveTimeout === undefined ? {} : { keepAliveTimeout: subject.keepAliveTimeout })
  })
  app.get("/quick", (_, reply) => reply.send("quick"))
  app.get("/slow", (_, reply) => {
    began()
    setTimeout(() => reply.send("slow"), slowMillis)
  })
  app.get("/*", ({ url }, reply) => reply.send(url))
  prepared(app.server)
  if (protocol === "http") accept(app.server)
  process.once("SIGTERM", () => void app.close().then(() => process.exit(0)))
  void app.listen(address)
}

switch (kind) {
  case "effect-kms":
    Api.pipe(
      Layer.provide(KmsHttp.layer(create, address)),
      Kms.launch(),
      NodeRuntime.runMain({ teardown: Kms.teardown })
    )
    break
  case "NodeHttpServer":
    Api.pipe(Layer.provide(NodeHttpServer.layer(create, address)), Layer.launch, NodeRuntime.runMain)
    break
  case "NodeHttpServer, 0 s":
    Api.pipe(
      Layer.provide(NodeHttpServer.layer(create, { ...address, gracefulShutdownTimeout: 0 })),
      Layer.launch,
      NodeRuntime.runMain
    )
    break
  case "fastify":
    fastify()
    break
  default: {
    const server = create()
    server.on("request", answer)
    stops[kind]({ server, sockets: accept(server) })
    server.listen(address)
  }
}
