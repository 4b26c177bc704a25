/**
 * The clients that speak in lines, over TCP and over a Unix socket.
 */
import { Effect, Stream } from "effect"
import { connect, type NetConnectOpts } from "node:net"
import { content } from "../11-everything/content.ts"
import type { Client, Servers } from "./client.ts"
import { check, chunks, collect, Lost } from "./wire.ts"

const client = (name: string, where: (servers: Servers) => NetConnectOpts): ReadonlyArray<Client> => [
  {
    name: `${name}, at work`,
    run: Effect.fnUntraced(function* (servers, underWay) {
      const socket = connect(where(servers))
      yield* Effect.callback<void>((resume) => void socket.write(`slow ${name}\n`, () => resume(Effect.void)))
      yield* underWay
      return yield* farewell(yield* collect(chunks(socket)), answer(name))
    })
  },
  {
    name: `${name}, idle`,
    run: Effect.fnUntraced(function* (servers, underWay) {
      const socket = connect(where(servers))
      socket.write(`quick ${name}\n`)
      const expected = answer(name)
      let length = 0
      const isAnswered = (chunk: Uint8Array) => (length += chunk.length) >= expected.length
      const all = yield* collect(Stream.tap(chunks(socket), (chunk) => (isAnswered(chunk) ? underWay : Effect.void)))
      return yield* farewell(all, expected)
    })
  }
]

/** What the server has to say to a name. */
const answer = (name: string) => Buffer.from(`${content(name, 64 * 1024).toString("hex")}\n`)

/** Checks an answer, and that a goodbye came after it. */
const farewell = Effect.fnUntraced(function* (all: Buffer, answer: Buffer) {
  const body = yield* check(all.subarray(0, answer.length), answer)
  if (all.toString("utf8", answer.length) !== "goodbye\n")
    return yield* new Lost({ message: `${body}, but no goodbye` })
  return `${body}, then a goodbye`
})

export const lines: ReadonlyArray<Client> = [
  ...client("TCP", ({ tcp }) => ({ host: tcp.hostname, port: Number(tcp.port) })),
  ...client("Unix", ({ unix }) => ({ path: decodeURIComponent(unix.pathname) }))
]
