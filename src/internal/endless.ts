/**
 * Responses that would go on for ever, and end with the drain: event streams.
 */
import type { ServerResponse } from "node:http"
import { onHead, sent } from "./head.ts"

/**
 * Ends the body of a response that goes on for ever, now or as soon as its headers are out, as if its handler had: for the
 * client that is its end, not a failure.
 */
export const endWhenEndless = (response: ServerResponse, isEndless: (response: ServerResponse) => boolean): void => {
  const end = () => {
    if (response.writableEnded || !isEndless(response)) return
    response.end()
    // Its handler may not know, and writes on. That would be an error, and over HTTP/2 reset the stream.
    const ignore = (args: ReadonlyArray<unknown>) => {
      const callback = args.at(-1)
      if (typeof callback === "function") queueMicrotask(() => callback())
    }
    response.write = (...args: ReadonlyArray<unknown>) => {
      ignore(args)
      return true
    }
    response.end = (...args: ReadonlyArray<unknown>) => {
      ignore(args)
      return response
    }
  }
  if (response.headersSent) return end()
  onHead(
    response,
    (head) => head,
    () => queueMicrotask(end)
  )
}

/** A predicate of the user's: one that throws has said nothing. */
export const guarded =
  <A>(isEndless: (response: A) => boolean) =>
  (response: A): boolean => {
    try {
      return isEndless(response)
    } catch {
      return false
    }
  }

/** Whether a media type is that of an event stream. */
export const isEventStreamType = (type: string): boolean => /^text\/event-stream\s*(;|$)/i.test(type)

/** Whether the headers of a response say that it is an event stream. */
export const isEventStream = (response: ServerResponse): boolean => {
  const type = response.getHeader("content-type")
  if (type !== undefined) return isEventStreamType(String(type))
  // Headers given to `writeHead` alone are nowhere but in the head as it was sent.
  return isEventStreamType(sent(response, "content-type"))
}
