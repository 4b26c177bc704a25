/**
 * A server to be hammered: it answers every request with its path. The same application on three kinds of server, and
 * over three protocols.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer, type Server } from "node:http"
import { createSecureServer, createServer as createHttp2Server } from "node:http2"
import { createServer as createHttpsServer } from "node:https"
import type { AddressInfo } from "node:net"
import { cert, key } from "./certificate.ts"
import type { Protocol } from "./hammer.ts"

export interface Hammered {
  readonly kind: "effect-kms" | "node:http" | "NodeHttpServer"
  readonly protocol: Protocol
  /** In milliseconds. */
  readonly lameDuck: number
  /** In milliseconds; what effect-kms has by default where nothing is said. */
  readonly quietPeriod?: number | undefined
}

const { kind, lameDuck, protocol, quietPeriod } = JSON.parse(process.argv[2]!) as Hammered

const create = (): Server => {
  const server = {
    http: () => createServer(),
    https: () => createHttpsServer({ key, cert }),
    http2: () => createSecureServer({ key, cert }) as unknown as Server,
    h2c: () => createHttp2Server() as unknown as Server
  }[protocol]()
  server.on("listening", () => {
    process.stdout.write(`port ${(server.address() as AddressInfo).port}\n`)
  })
  return server
}

const address = { port: 0, host: "127.0.0.1" }

const Api = HttpRouter.serve(
  HttpRouter.add(
    "GET",
    "/*",
    Effect.map(HttpServerRequest.HttpServerRequest, ({ url }) => HttpServerResponse.text(url))
  ),
  { disableLogger: true, disableListenLog: true }
)

switch (kind) {
  case "effect-kms":
    Api.pipe(
      Layer.provide(KmsHttp.layer(create, { ...address, quietPeriod })),
      Kms.launch({ lameDuck }),
      NodeRuntime.runMain({ teardown: Kms.teardown })
    )
    break
  case "NodeHttpServer":
    Api.pipe(Layer.provide(NodeHttpServer.layer(create, address)), Layer.launch, NodeRuntime.runMain)
    break
  case "node:http": {
    const server = create()
    server.on("request", (request, response) => response.end(request.url)).listen(address)
    process.once("SIGTERM", () => server.close())
  }
}
