/**
 * The server of `shutdown.ts`, of three kinds: plain `node:http` with `server.close()`, Effect's own, and effect-kms.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Layer, Schedule, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { WebSocketServer } from "ws"
import { heldSocket } from "./held-socket.ts"

export type Kind = "node:http" | "NodeHttpServer" | "effect-kms"

/** The size of the answer to `/big`. */
export const bigSize = 64 * 1024 * 1024

const create = () => {
  const server = createServer()
  return server.on("listening", () => console.log(`port ${(server.address() as AddressInfo).port}`))
}

const address = { port: 0, host: "127.0.0.1" }

const began = Effect.sync(() => console.log("began"))

const Api = HttpRouter.serve(
  Layer.mergeAll(
    HttpRouter.add("GET", "/quick", HttpServerResponse.text("quick")),
    HttpRouter.add(
      "GET",
      "/slow",
      began.pipe(Effect.andThen(Effect.sleep("2 seconds")), Effect.as(HttpServerResponse.text("slow")))
    ),
    HttpRouter.add(
      "GET",
      "/big",
      Effect.sync(() => HttpServerResponse.uint8Array(Buffer.alloc(bigSize)))
    ),
    HttpRouter.add(
      "GET",
      "/events",
      HttpServerResponse.stream(
        Stream.fromSchedule(Schedule.spaced("20 millis")).pipe(
          Stream.map((n) => `data: ${n}\n\n`),
          Stream.encodeText
        ),
        { contentType: "text/event-stream" }
      )
    ),
    HttpRouter.add("GET", "/socket", heldSocket)
  ),
  { disableLogger: true, disableListenLog: true }
)

const plain = (): void => {
  const server = create().listen(address)
  const sockets = new WebSocketServer({ server })
  sockets.on("connection", (socket) => socket.on("message", () => {}))
  server.on("request", (request, response) => {
    switch (request.url) {
      case "/slow":
        console.log("began")
        setTimeout(() => response.end("slow"), 2000)
        break
      case "/big":
        response.end(Buffer.alloc(bigSize))
        break
      case "/events": {
        response.writeHead(200, { "content-type": "text/event-stream" })
        const timer = setInterval(() => response.write("data: event\n\n"), 20)
        response.on("close", () => clearInterval(timer))
        break
      }
      default:
        response.end("quick")
    }
  })
  process.once("SIGTERM", () => server.close())
}

switch (process.argv[2] as Kind) {
  case "node:http":
    plain()
    break
  case "NodeHttpServer":
    Api.pipe(Layer.provide(NodeHttpServer.layer(create, address)), Layer.launch, NodeRuntime.runMain)
    break
  case "effect-kms":
    Api.pipe(
      Layer.provide(KmsHttp.layer(create, address)),
      Kms.launch(),
      NodeRuntime.runMain({ teardown: Kms.teardown })
    )
}
