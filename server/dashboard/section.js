// A section of the page: HTML that the server made, fetched from where it says. New HTML changes what differs and leaves
// the rest as it is. A button with data-action tells the server that it was pressed, with all its data.
export default {
  template: `<div @click="pressed"></div>`,
  props: { src: String },
  mounted() {
    this.fill();
  },
  watch: { src: "fill" },
  methods: {
    async fill() {
      const src = this.src;
      const html = await page.fetched(src, () => this.src === src && this.$el.isConnected);
      if (html === null) return; // there is something newer, or the section is gone
      morph(this.$el, html);
      page.drawn(this.$el);
    },
    pressed(event) {
      const button = event.target.closest("button[data-action]");
      if (button) this.$emit("action", { ...button.dataset });
    },
  },
};
