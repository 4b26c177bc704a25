/**
 * A process of clients under constant load. Prints `busy` once each has had its first answer, `failed` with each failure as
 * it happens, and `counted` at the end. SIGTERM asks them to end: each waits for what it has in flight.
 */
import { type Failure, type Kind, Ledger } from "../ledger.ts"
import type { Load } from "../load.ts"
import * as Random from "../random.ts"
import type { Client } from "./client.ts"
import { events } from "./events.ts"
import { keepAlive, oneShot } from "./http1.ts"
import { http2 } from "./http2.ts"
import { uploads } from "./upload.ts"
import { webSocket } from "./websocket.ts"

const start: { readonly [K in Kind]: (client: Client) => void } = {
  "keep-alive": (client) => keepAlive(client, client.load.http, [0, 100]),
  "far, in use": (client) => keepAlive(client, load.far!, [0, 100]),
  far: (client) => keepAlive(client, load.far!, [100, 1200]),
  "one-shot": oneShot,
  "HTTP/2": http2,
  WebSocket: webSocket,
  upload: uploads,
  events
}

const load = JSON.parse(process.argv[2]!) as Load
const ledgers = new Map<Kind, Ledger>()
const onStop = new Set<() => void>()
let stopping = false
let silent = 0
let id = 0

process.once("SIGTERM", () => {
  stopping = true
  for (const listener of Array.from(onStop)) listener()
})

const client = (ledger: Ledger): Client => {
  id++
  silent++
  let hasHeard = false
  const random = Random.make(load.seed + id)
  return {
    id,
    load,
    ledger,
    random,
    stopping: () => stopping,
    onStop: (listener) => (stopping ? listener() : void onStop.add(listener)),
    heard: () => {
      if (hasHeard) return
      hasHeard = true
      if (--silent === 0) process.stdout.write("busy\n")
    },
    pause: (least, most, next) => {
      const done = () => {
        clearTimeout(timer)
        onStop.delete(done)
        next()
      }
      const timer = setTimeout(done, random.between(least, most))
      if (stopping) done()
      else onStop.add(done)
    }
  }
}

const tell = (failure: Failure) => void process.stdout.write(`failed ${JSON.stringify(failure)}\n`)

const begin: Array<() => void> = []
for (const [kind, count] of Object.entries(load.clients) as Array<[Kind, number]>) {
  const ledger = new Ledger(kind, tell)
  ledgers.set(kind, ledger)
  for (let index = 0; index < count; index++) {
    const each = client(ledger)
    begin.push(() => start[kind](each))
  }
}
for (const each of begin) each()

process.once("beforeExit", () => {
  const counted = Object.fromEntries(Array.from(ledgers, ([kind, { counts }]) => [kind, counts]))
  process.stdout.write(`counted ${JSON.stringify(counted)}\n`)
})
