// Shows: a server whose requests Express answers. KmsHttp.layerNode drains it all the same; Fastify, Koa and Next.js fit too.
// Run: npm run example examples/05-express/main.ts; then `curl localhost:3005/slow`, `/ticks` or `/news`, and Ctrl-C here.
// See: /slow is answered in full, /ticks ends cleanly, /news gives up its long poll at once with 204. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { Kms, KmsHttp } from "effect-kms"
import express from "express"
import { EventEmitter, once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { setTimeout } from "node:timers/promises"

const news = new EventEmitter()
news.setMaxListeners(0)

const makeApp = (drain: AbortSignal) => {
  const app = express()

  app.get("/slow", async (_request, response) => {
    console.log("slow: begun")
    await setTimeout(2000)
    response.send("Worth the wait\n")
  })

  // Written to until the response has closed. KmsHttp knows an event stream by its type, and ends it.
  app.get("/ticks", (_request, response) => {
    let count = 0
    response.writeHead(200, { "content-type": "text/event-stream" })
    const tick = () => response.write(`data: ${count++}\n\n`)
    const timer = setInterval(tick, 1000)
    response.on("close", () => clearInterval(timer))
    tick()
  })

  app.post("/news", express.text({ type: "*/*" }), (request, response) => {
    news.emit("item", request.body)
    response.sendStatus(202)
  })

  // A long poll waits for half a minute, unless the drain begins: what waits for something outside has to be told.
  app.get("/news", async (_request, response) => {
    console.log("news: waiting")
    const waiting = AbortSignal.any([drain, AbortSignal.timeout(30_000)])
    const [item] = await once(news, "item", { signal: waiting }).catch(() => [undefined])
    if (item === undefined) response.sendStatus(204)
    else response.send(item)
  })

  return app
}

const Api = Layer.unwrap(
  Effect.gen(function* () {
    const port = yield* Config.withDefault(Config.Int("PORT"), 3005)
    return KmsHttp.layerNode(
      (drain) => {
        const server = createServer(makeApp(drain))
        return server.on("listening", () =>
          console.log(`Listening on http://localhost:${(server.address() as AddressInfo).port}`)
        )
      },
      { port }
    )
  })
)

Api.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
