/**
 * Over TCP and Unix sockets, line by line: `quick name` and `slow name` are answered with that row, in hexadecimal, and
 * whoever has nothing under way when the drain begins is told goodbye. It is the protocol of 07.
 */
import { Effect, Layer } from "effect"
import { type Socket, SocketServer } from "effect/socket"
import { Kms } from "effect-kms"
import { readLines } from "../07-tcp-and-tls/lines.ts"
import { Database } from "./database.ts"
import { logAddress } from "./listening.ts"

const answer = Effect.fn("answer")(function* (line: string) {
  const [command, name = ""] = line.split(" ")
  if (command === "slow") yield* Effect.sleep("2 seconds")
  const database = yield* Database
  return `${(yield* database.read(name, 64 * 1024)).toString("hex")}\n`
})

const converse = (socket: Socket.Socket) =>
  Effect.gen(function* () {
    const readLine = yield* readLines(socket)
    const { write } = yield* socket.writer
    const next = Effect.raceFirst(readLine, Effect.as(Kms.initiated, undefined))
    for (let line = yield* next; line !== undefined; line = yield* next) yield* write(yield* answer(line))
    yield* write("goodbye\n")
  }).pipe(
    Effect.scoped,
    Effect.catchReason("SocketError", "SocketCloseError", () => Effect.void)
  )

/** A layer of its own each time: the same one would be built once, for all its listeners. */
export const lines = (scheme: string) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const server = yield* SocketServer.SocketServer
      yield* logAddress(scheme)
      yield* Effect.forkScoped(server.run(converse))
    })
  )
