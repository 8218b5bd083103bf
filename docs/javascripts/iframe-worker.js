/* A Worker for pages that are opened from disk, where browsers allow none: its script runs in a
   hidden frame. The search of the site asks for one worker and exchanges messages with it. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.appendChild(frame);
      this.inside = frame.contentWindow;
      const scope = this.inside;
      scope.postMessage = (data) => this.answer(data);
      scope.importScripts = (...urls) =>
        urls.reduce(
          (before, next) => before.then(() => this.load(scope, next)),
          Promise.resolve(),
        );
      this.load(scope, url).then(() => {
        const early = this.waiting;
        this.waiting = null;
        early.forEach((data) => this.postMessage(data));
      });
    }

    load(scope, url) {
      return new Promise((done, failed) => {
        const script = scope.document.createElement("script");
        script.src = url;
        script.onload = done;
        script.onerror = failed;
        scope.document.documentElement.appendChild(script);
      });
    }

    answer(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
    }

    terminate() {}
  };
}
