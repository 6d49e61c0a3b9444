// The line that says how fresh the page is. live.js writes it, since it must go on when the server does not.
export default {
  template: `<div class="feed"><span class="dot" aria-hidden="true"></span><span class="said" role="status"></span> <span class="age"></span></div>`,
  props: { news: Object },
  mounted() {
    page.news(this.news);
  },
  watch: {
    news(now) {
      page.news(now);
    },
  },
};
