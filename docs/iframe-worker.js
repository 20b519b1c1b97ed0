// Browsers start no worker from disk. There the search runs in a hidden frame of the page.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = "<!doctype html>";
      this.ready = new Promise((resolve) => {
        this.frame.onload = () => {
          const inner = this.frame.contentWindow;
          inner.postMessage = (data) => this.onmessage?.({ data: structuredClone(data) });
          const script = inner.document.createElement("script");
          script.onload = () => resolve(inner);
          script.onerror = (event) => this.onerror?.(event);
          script.src = url;
          inner.document.body.append(script);
        };
      });
      document.body.append(this.frame);
    }

    postMessage(data) {
      const copy = structuredClone(data); // as a worker gets it
      this.ready.then((inner) => inner.onmessage({ data: copy }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
