/**
 * What the clients do on the wire.
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import { Data, Deferred, Effect, Exit, Stream } from "effect"
import { Agent, type IncomingMessage, request, type RequestOptions } from "node:http"
import type { Readable } from "node:stream"
import { sha256 } from "../11-everything/content.ts"

/** Something did not come, or not as it should have. */
export class Lost extends Data.TaggedError("Lost")<{ readonly message: string }> {}

/** Opens a request on a connection of its own, or on the agent's. */
export const send = (url: URL, options: RequestOptions = {}) =>
  Effect.sync(() => {
    const response = Deferred.makeUnsafe<IncomingMessage, Lost>()
    const call = request(url, { agent: new Agent({ keepAlive: true }), ...options })
    call.on("response", (message) => Deferred.doneUnsafe(response, Exit.succeed(message)))
    call.on("error", ({ message }) => Deferred.doneUnsafe(response, Exit.fail(new Lost({ message }))))
    // After a failure nothing calls back.
    const handed = (hand: (done: () => void) => void) =>
      Effect.raceFirst(
        Effect.callback<void>((resume) => hand(() => resume(Effect.void))),
        Effect.andThen(Deferred.await(response), Effect.never)
      )
    return {
      /** Completes when the data has been handed to the system. */
      write: (data: Buffer) => handed((done) => call.write(data, done)),
      /** Completes when the whole request has been handed to the system. */
      finish: () => handed((done) => call.end(done)),
      response: Deferred.await(response)
    }
  })

/** The chunks of a body or a connection. Fails where it is cut. */
export const chunks = (input: Readable): Stream.Stream<Uint8Array, Lost> =>
  NodeStream.fromReadable({
    evaluate: () => input,
    onError: (error) => new Lost({ message: error instanceof Error ? error.message : String(error) }),
    closeOnDone: false
  })

/** All of a body or a connection. Fails where it is cut. */
export const read = (input: Readable): Effect.Effect<Buffer, Lost> => collect(chunks(input))

export const collect = <E>(stream: Stream.Stream<Uint8Array, E>): Effect.Effect<Buffer, E> =>
  Effect.map(Stream.runCollect(stream), (all) => Buffer.concat(all))

/** Compares what came with what had to come, and says so. */
export const check = (came: Uint8Array, expected: Uint8Array): Effect.Effect<string, Lost> =>
  sha256(came) === sha256(expected)
    ? Effect.succeed(`${size(came)} right`)
    : Effect.fail(new Lost({ message: difference(came, expected) }))

const difference = (came: Uint8Array, expected: Uint8Array): string =>
  came.length === expected.length ? "the wrong bytes" : `${came.length} of ${expected.length} bytes`

/** How much it is, in words. */
export const size = ({ length }: Uint8Array): string =>
  length < 1024 * 1024 ? `${Math.round(length / 1024)} KiB` : `${Math.round(length / 10_485.76) / 100} MiB`

/** The next event of its kind, listened for from now on. */
export const next = <A>(target: EventTarget, event: string): Effect.Effect<A> => {
  const heard = Deferred.makeUnsafe<A>()
  target.addEventListener(event, (value) => Deferred.doneUnsafe(heard, Exit.succeed(value as A)), { once: true })
  return Deferred.await(heard)
}
