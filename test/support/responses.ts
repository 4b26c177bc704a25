/**
 * HTTP/1.1 responses, read off a socket by hand: a client library would hide, or try again, what is to be counted.
 */
export interface Response {
  readonly status: number
  /** The last of its connection, by its own word. */
  readonly close: boolean
  readonly body: string
}

/** Takes what a connection brings, and gives the responses that are complete. */
export class Responses {
  private rest = ""

  push(chunk: string): Array<Response> {
    this.rest += chunk
    const complete: Array<Response> = []
    for (;;) {
      const headEnd = this.rest.indexOf("\r\n\r\n")
      if (headEnd < 0) return complete
      const head = this.rest.slice(0, headEnd)
      const length = /\r\ncontent-length: *(\d+)/i.exec(head)
      if (length === null) throw new Error(`A response without a length:\n${head}`)
      const end = headEnd + 4 + Number(length[1])
      if (this.rest.length < end) return complete
      complete.push({
        status: Number(head.slice(9, 12)),
        close: /\r\nconnection: *close/i.test(head),
        body: this.rest.slice(headEnd + 4, end)
      })
      this.rest = this.rest.slice(end)
    }
  }
}
